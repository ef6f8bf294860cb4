"""Files that were compressed: unpacked to the disk before they are read."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from methods.arrays.unpacking import Unpacked, size_of
from methods.context import RunContext
from methods.errors import JobError
from methods.select_subset.data.row_files import Opener
from methods.select_subset.data.table_files import arrow

_MAX_BYTES = 1 << 40
_STEP = 16 << 20


def _zstandard(reader: BinaryIO) -> Any:
    return arrow()[0].CompressedInputStream(reader, "zstd")


#: By the first bytes of a file: the name of the format and what reads it.
_FORMATS: dict[bytes, tuple[str, Callable[[BinaryIO], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda reader: gzip.GzipFile(fileobj=reader)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ": ("xz", lzma.LZMAFile),
    b"\x28\xb5\x2f\xfd": ("Zstandard", _zstandard),
}


def unpacked(opened: Opener, ctx: RunContext, what: str) -> Opener:
    """What opens the content of a file: itself, or what it is after it was unpacked.

    Args:
        what: names the file in messages.

    Raises:
        JobError: `input_invalid` for a damaged file; `too_large`.
    """
    with opened() as reader:
        start = reader.read(6)
        found = next((one for magic, one in _FORMATS.items() if start.startswith(magic)), None)
        if found is None:
            return opened
        name, unpack = found
        reader.seek(0)
        handle, named = tempfile.mkstemp(".unpacked", dir=ctx.workdir)
        os.close(handle)
        path = Path(named)
        try:
            _write(Unpacked(unpack(reader), size_of(reader), _MAX_BYTES, what), path, ctx)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            text = f"{what}: the {name} file is damaged: {error}"
            raise JobError("input_invalid", text) from error
    return lambda: path.open("rb")


def _write(source: Unpacked, path: Path, ctx: RunContext) -> None:
    with path.open("wb") as writer:
        while data := source.read(_STEP):
            writer.write(data)
            ctx.check()
