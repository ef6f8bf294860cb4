"""Rows for the proxy: conversations and images, checked, spooled and encoded."""
