"""The `datassay` command; its entry point is `main`. The library imports nothing from here."""
