"""XMAS for files beyond memory, in chunks; the same choice as in memory."""
