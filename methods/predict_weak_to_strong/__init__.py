"""Rank weak supervisors for a strong model from representations alone (arXiv:2502.00620)."""
