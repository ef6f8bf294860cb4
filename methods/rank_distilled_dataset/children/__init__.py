"""Trainings as child jobs: their specs, how they are bundled, and the engine that runs them.

The registry finds the job types in `spec`.
"""
