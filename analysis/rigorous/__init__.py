"""Rigorous numerics: statements about a concrete float model that are proved in ball arithmetic."""
