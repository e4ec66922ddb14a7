"""Benchmarks: cases as data, each checked against an independent truth before it is timed beside its baselines."""
