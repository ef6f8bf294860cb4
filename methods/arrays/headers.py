"""Headers of npy and safetensors files: what an array is, before any of it is read."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

MAX_SAFETENSORS_HEADER = 16 << 20
#: numpy writes some hundred bytes.
MAX_NPY_HEADER = 64 << 10

_SAFETENSORS_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}


_NPY_VERSIONS = {
    (1, 0): npy_format.read_array_header_1_0,
    (2, 0): npy_format.read_array_header_2_0,
}


def read_npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is column-major, and dtype; the stream stands at the data afterwards.

    Raises:
        ValueError: for another version of the format (3.0 holds structured arrays) or no header.
    """
    version = npy_format.read_magic(stream)
    if version not in _NPY_VERSIONS:
        raise ValueError(f"npy format version {version} holds structured arrays")
    field = stream.read(2 * version[0])
    length = int.from_bytes(field, "little")
    if length > MAX_NPY_HEADER:
        raise ValueError(f"its header says that it has {length} bytes")
    header = BytesIO(field + stream.read(length))
    shape, column_major, dtype = _NPY_VERSIONS[version](header)
    if any(length < 0 for length in shape):
        raise ValueError(f"its shape {shape} is negative")
    return shape, column_major, dtype


@dataclass(frozen=True)
class Tensor:
    """One array of a safetensors file.

    Attributes:
        dtype: as stored; bfloat16 as its 16 bits, see `widened`.
        start: its first byte, from the start of the file.
        size: its bytes.
        bfloat16: numpy has no such type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    size: int
    bfloat16: bool


class SafetensorsHeader:
    """The entries of a safetensors file, read from the start of a stream.

    Attributes:
        names: of the arrays, in the order of the header.

    Raises:
        ValueError: when it is no safetensors file.
    """

    def __init__(self, stream: BinaryIO) -> None:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= MAX_SAFETENSORS_HEADER:
            raise ValueError("no header of a possible length")
        try:
            entries = json.loads(stream.read(length))
        except RecursionError as error:
            raise ValueError("the header is nested too deeply") from error
        if not isinstance(entries, dict):
            raise ValueError("the header is no object")
        entries.pop("__metadata__", None)
        self._entries: dict[str, Any] = entries
        self._data = 8 + length
        self.names = list(entries)

    def tensor(self, name: str) -> Tensor:
        """Where an array is and what it is.

        Raises:
            KeyError, TypeError: when its entry lacks a field.
            ValueError: for another dtype, or when its size does not fit its shape.
        """
        entry = self._entries[name]
        kind = str(entry["dtype"])
        if kind not in _SAFETENSORS_DTYPES:
            raise ValueError(f"the dtype {kind} is not read; F16, BF16, F32, F64 and integers are")
        shape = tuple(int(length) for length in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
        dtype = np.dtype(_SAFETENSORS_DTYPES[kind])
        size = math.prod(shape) * dtype.itemsize
        if begin < 0 or min(shape, default=0) < 0 or end - begin != size:
            raise ValueError(f"the offsets do not fit the shape {shape} of {name}")
        return Tensor(shape, dtype, self._data + begin, size, kind == "BF16")


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 as float32, whose upper half it is."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
