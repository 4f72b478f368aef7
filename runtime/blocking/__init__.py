"""The same client for code without an event loop."""
