"""From items to scores, many at once: batches, their matrices, and the catalogue of scorers.

`pipeline.score` is the way in.
"""
