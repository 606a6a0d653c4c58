"""Latency in test-set order, and the clock that decides whether it can be believed."""
