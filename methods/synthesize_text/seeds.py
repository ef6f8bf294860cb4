"""Seeds that depend on what is made and on nothing else."""

from __future__ import annotations

from hashlib import sha256


def derived_seed(seed: int, *of: object) -> int:
    """A seed from 0 to 2^31 - 1, of a job's seed and what it is for."""
    return int.from_bytes(sha256(repr((seed, *of)).encode()).digest()[:4]) >> 1
