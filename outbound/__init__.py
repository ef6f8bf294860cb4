"""Connections to where somebody else's URL leads: inputs and webhooks. No URL is trusted here."""
