"""Per-example scores of weak labels; experimental, not in a paper of its own."""
