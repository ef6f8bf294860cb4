"""Seeds of trainings, derived from the seed of the request."""

from __future__ import annotations

from hashlib import sha256


def derived_seed(*parts: object) -> int:
    """A seed below 2^62 from the names of what it is for."""
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "big") >> 2
