"""Distances of two clouds of tokens, what chance makes of them, and what they meant before."""
