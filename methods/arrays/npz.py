"""Arrays by name as bytes of an npz file, for what our own jobs write and read back."""

from __future__ import annotations

import io

import numpy as np

from methods.typing import AnyArray


def savez(**arrays: AnyArray) -> bytes:
    """Arrays by name as an npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def loadz(data: bytes) -> dict[str, AnyArray]:
    """The arrays of an npz file, nothing unpickled."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
