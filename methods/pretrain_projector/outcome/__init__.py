"""From trained projectors to a result: comparison, files, figures, what to be careful of."""
