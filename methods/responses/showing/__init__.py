"""Tables, figures and warnings, for every job that has responses."""
