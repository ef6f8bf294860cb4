"""Scores of answers beside their peers: speed, memory, and AUROC on real answers."""
