"""Models that methods run: declared once in the settings, named by specs, loaded where needed."""
