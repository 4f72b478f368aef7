"""Hosts and workers on a Ray cluster: as actors, kept placed as nodes come and go."""
