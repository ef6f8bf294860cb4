"""Identifiers: a prefix that says what it is, then a UUIDv7 in hexadecimal; they sort by age."""

from __future__ import annotations

import os
import re
import time

_PATTERN = re.compile(r"(job|file|art|key|ten|whe|msg)_[0-9a-f]{32}")


def new_id(prefix: str) -> str:
    """A fresh id such as `job_019a3c5e7d1f7a2b8c4d5e6f70819203` (RFC 9562, version 7).

    The twelve bits after the milliseconds are a fraction of one (6.2, method 3): what a process
    makes a microsecond later sorts later.
    """
    milliseconds, rest = divmod(time.time_ns(), 1_000_000)
    value = milliseconds << 80 | 0x7 << 76 | (rest << 12) // 1_000_000 << 64
    value |= 0x2 << 62 | int.from_bytes(os.urandom(8)) >> 2
    return f"{prefix}_{value:032x}"


def is_id(value: str, prefix: str) -> bool:
    """Whether the text has the form of an id of that kind."""
    return bool(_PATTERN.fullmatch(value)) and value.startswith(f"{prefix}_")
