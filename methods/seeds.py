"""Seeds that depend on what they are for and on nothing else."""

from __future__ import annotations

from hashlib import sha256


def derived_seed(*parts: object, bits: int = 62) -> int:
    """A seed below 2^bits, at most 2^64, from a seed and the names of what it is for."""
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "big") >> (64 - bits)
