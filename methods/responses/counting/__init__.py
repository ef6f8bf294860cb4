"""Shares with intervals, paired tests, gates and the Pareto front."""
