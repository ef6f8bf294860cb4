"""Fits what turns a score into a probability and a decision, on labelled items."""
