"""What a compressed or boastful file may unpack to: asked before, and watched while it unpacks.

Memory is to follow the bytes that were sent: a claim in a header allocates nothing, and what
unpacks to hundreds of times its size is refused as soon as it is large.
"""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from typing import Any, BinaryIO, cast

from methods.errors import JobError

#: Up to here nothing is asked: a few MiB of zeros are no bomb.
HARMLESS_BYTES = 64 << 20
#: Above, a file may unpack to this many times its size. Numbers rarely reach ten, text fifty.
MAX_RATIO = 200
#: The directory of a zip archive takes some fifteen times its size in memory.
MAX_DIRECTORY_BYTES = 4 << 20
_STEP = 16 << 20

#: All that the readers of damaged files raise.
DAMAGED = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    EOFError,
    OSError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def check_ratio(unpacked: int, packed: int, label: str) -> None:
    """Raise `JobError('too_large')` for what unpacks to far more than was sent."""
    if unpacked > HARMLESS_BYTES and unpacked > MAX_RATIO * max(packed, 1):
        raise JobError(
            "too_large",
            f"{label} unpacks to {unpacked} bytes, {unpacked // max(packed, 1)} times its size; "
            f"above {HARMLESS_BYTES} bytes {MAX_RATIO} times are allowed.",
        )


def size_of(stream: Any) -> int:
    """Bytes of a seekable stream, whose place does not change."""
    here = stream.tell()
    end: int = stream.seek(0, os.SEEK_END)
    stream.seek(here)
    return end


def open_zip(
    stream: BinaryIO, label: str, max_bytes: int, max_directory: int = MAX_DIRECTORY_BYTES
) -> zipfile.ZipFile:
    """A zip archive whose claims are within the limits; stored or deflated members only.

    Args:
        max_bytes: of all members together.
        max_directory: of the archive's list of members.

    Raises:
        JobError: `too_large`, `input_invalid` for other ways of packing.
        zipfile.BadZipFile: it is no zip archive.
    """
    # Before the archive is opened: that already makes an object of every member.
    end = cast(Any, zipfile)._EndRecData(stream)
    if end and end[5] > max_directory:
        raise JobError("too_large", f"{label} lists too many members ({end[5]} bytes of names).")
    stream.seek(0)
    archive = zipfile.ZipFile(stream)
    members = archive.infolist()
    if odd := [m for m in members if m.compress_type not in (0, 8) or m.flag_bits & 1]:
        raise JobError(
            "input_invalid",
            f"{label} holds {odd[0].filename[:100]!r}, which is encrypted or packed in another way "
            "than deflate.",
        )
    unpacked = sum(member.file_size for member in members)
    if unpacked > max_bytes:
        raise JobError("too_large", f"{label} unpacks to {unpacked} bytes; limit {max_bytes}.")
    check_ratio(unpacked, size_of(stream), label)
    return archive


def read_exactly(stream: Any, size: int) -> bytearray:
    """That many bytes, allocated as they come.

    Raises:
        ValueError: the stream ends before.
    """
    data = bytearray()
    while len(data) < size:
        part = stream.read(min(size - len(data), _STEP))
        if not part:
            raise ValueError(f"it ends after {len(data)} of {size} bytes")
        data += part
    return data


class Unpacked:
    """A stream that unpacks another one, and is refused when that gets out of hand.

    Args:
        stream: gives the unpacked bytes.
        packed: size of what it unpacks.
        max_bytes: limit of all bytes.
    """

    def __init__(self, stream: Any, packed: int, max_bytes: int, label: str) -> None:
        self._stream, self._packed, self._label = stream, packed, label
        self._max, self._size = max_bytes, 0

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes. Raises `JobError('too_large')`."""
        left = self._max + 1 - self._size
        wanted = left if size < 0 else min(size, left)
        data = bytearray()
        while len(data) < wanted:
            part = self._stream.read(min(wanted - len(data), _STEP))
            if not part:
                break
            data += part
            self._size += len(part)
            check_ratio(self._size, self._packed, self._label)
        if self._size > self._max:
            raise JobError("too_large", f"{self._label} unpacks to more than {self._max} bytes.")
        return bytes(data)


def check_parquet(file: Any, packed: int, label: str) -> None:
    """Raise `JobError('too_large')` when the columns hold far more than the file has bytes.

    Run-length codes make a billion equal values out of a few bytes, which no size in the file's
    own directory tells; the number of values does.

    Args:
        file: a `pyarrow.parquet.ParquetFile`.
    """
    meta = file.metadata
    unpacked = 0
    for group in range(meta.num_row_groups):
        for index in range(meta.num_columns):
            column = meta.row_group(group).column(index)
            unpacked += max(column.total_uncompressed_size, 8 * column.num_values)
    check_ratio(max(unpacked, 8 * meta.num_rows), packed, label)
