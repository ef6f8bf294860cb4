"""Alembic migrations; `datassay-server migrate` runs them."""
