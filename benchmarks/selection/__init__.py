"""select-subset beside the official code: speed, memory, and what a chosen tenth teaches."""
