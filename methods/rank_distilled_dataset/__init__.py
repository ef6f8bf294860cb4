"""Rank distilled data sets with shared baselines and honest intervals."""
