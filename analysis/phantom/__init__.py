"""Derivatives of an equilibrium, exact and by phantom steps, and bounds of what separates the two."""
