"""Embeddings optimised towards a target, and back to tokens."""
