"""Which rows are slow, and how often each is to occur. Pure functions."""
