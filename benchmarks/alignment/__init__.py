"""Benchmarks of synthesize-text."""
