"""Training of the papers' models."""
