"""How long to think at test time, and on what to train for it (arXiv:2510.03605)."""
