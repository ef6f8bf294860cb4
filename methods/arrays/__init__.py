"""Numeric inputs of jobs: stored arrays, rows of them in step, and their moments."""
