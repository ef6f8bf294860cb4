"""Hallucination scores from sampled answers: SNNE, WSNNE and their peers."""
