"""Trainings that `rank-distilled-dataset` consists of, as jobs of their own."""
