"""Proofs by computer algebra: formal chain rule, non-commuting inductions, exact counterexamples."""
