"""Gradients of the output head: their factors, distances, targets, exact or noisy."""
