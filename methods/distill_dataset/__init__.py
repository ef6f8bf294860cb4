"""Distilled data sets made by the service, as candidates and baselines."""
