"""Benchmarks: each module answers one question; `python -m benchmarks` runs them all."""
