"""Where tokens come from: files, or a model that reads pairs."""
