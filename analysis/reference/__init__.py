"""Slow and obvious routes to the same numbers: unrolled autodiff, and Newton at any precision."""
