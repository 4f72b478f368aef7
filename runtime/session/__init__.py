"""A session with a hub: requests out, each exactly once; responses in."""
