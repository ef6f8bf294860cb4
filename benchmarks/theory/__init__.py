"""Weak-to-strong prediction: speed and memory."""
