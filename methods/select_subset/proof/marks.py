"""Masks of rows as short texts, which the specs of children hold."""

from __future__ import annotations

import base64
import zlib

import numpy as np

from methods.typing import BoolArray


def marked(rows: BoolArray) -> str:
    """A mask of rows as text."""
    return base64.b64encode(zlib.compress(np.packbits(rows).tobytes())).decode()


def unmarked(text: str, count: int) -> BoolArray:
    """What `marked` was given, of so many rows."""
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    return np.unpackbits(bits)[:count].astype(np.bool_)
