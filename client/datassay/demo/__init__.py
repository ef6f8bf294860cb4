"""Real answers of a small model, for `datassay demo`."""
