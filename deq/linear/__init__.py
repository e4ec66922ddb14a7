"""Linear systems of equilibria."""
