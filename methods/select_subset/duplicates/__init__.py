"""Rows that repeat others, exactly or nearly: found before any method chooses."""
