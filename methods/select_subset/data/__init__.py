"""Rows and features as people have them: formats, matching by id, and what is written back."""
