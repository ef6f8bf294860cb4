"""Whether the choice teaches more than as many random rows."""
