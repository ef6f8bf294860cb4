"""Prompts and responses as people have them; what of a response is its answer."""
