"""Results for people: a self-contained HTML page, tables for a terminal."""
