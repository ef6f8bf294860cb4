"""Files made to hurt: small to send, large or endless to read, or lying about themselves."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pyarrow
import pyarrow.parquet

MIB = 1 << 20


def npy_header(
    shape: tuple[int, ...], dtype: str = "<f8", version: int = 1, *, text: str | None = None
) -> bytes:
    if text is None:
        text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape!r}, }}"
    size = struct.pack("<H" if version == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode() + b"\n"


def zeros(size: int) -> Callable[[io.BufferedIOBase], None]:
    def write(writer: io.BufferedIOBase) -> None:
        block = bytes(MIB)
        for _ in range(size // MIB):
            writer.write(block)

    return write


def zipped(name: str, start: bytes, size: int, method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    """One member that unpacks to `start` and then that many zero bytes."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", method) as archive,
        archive.open(name, "w", force_zip64=True) as writer,
    ):
        writer.write(start)
        zeros(size)(writer)  # type: ignore[arg-type]
    stream.seek(0)
    return stream


def corrupted(stream: io.BytesIO) -> io.BytesIO:
    """The same archive with its packed bytes spoiled, its directory intact."""
    data = bytearray(stream.getvalue())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        first = archive.infolist()[0]
    start = first.header_offset + 30 + len(first.filename) + 20
    middle = start + first.compress_size // 2
    for place in range(start, middle):
        data[place] ^= 0xA5
    return io.BytesIO(bytes(data))


def crowded_zip(members: int) -> io.BytesIO:
    """One empty member, listed that often."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", b"")
    data = stream.getvalue()
    entry = data[data.index(b"PK\x01\x02") : data.index(b"PK\x05\x06")]
    start = data.index(b"PK\x01\x02")
    size = members * len(entry)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, size, start, 0)
    return io.BytesIO(data[:start] + entry * members + end)


def gzipped(start: bytes, size: int) -> io.BytesIO:
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=9) as writer:
        writer.write(start)
        zeros(size)(writer)  # type: ignore[arg-type]
    stream.seek(0)
    return stream


def tarred(members: list[tuple[str, int, bytes]], mode: str = "w:gz") -> io.BytesIO:
    """Members by name, claimed size and content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for name, size, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            assert size == len(data) or mode == "w"
    stream.seek(0)
    return stream


def repeated_parquet(rows: int, value: object, batch: int = 1_000_000) -> io.BytesIO:
    """A column of one value: run-length coded, so that its size hardly depends on the rows."""
    stream = io.BytesIO()
    array = pyarrow.array([value]).take(pyarrow.array(np.zeros(min(rows, batch), np.int64)))
    table = pyarrow.table({"id": array, "x": array})
    with pyarrow.parquet.ParquetWriter(stream, table.schema, compression="zstd") as writer:
        for _ in range(max(1, rows // batch)):
            writer.write_table(table)
    stream.seek(0)
    return stream


def png(width: int, height: int, body: bytes = b"") -> bytes:
    """A PNG that says how large it is; the body unpacks to as much as is given."""

    def part(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(body, 9)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", part(b"IHDR", header), part(b"IDAT", packed), part(b"IEND", b"")]
    )


def jpeg(width: int, height: int) -> bytes:
    """The header of a JPEG of that size, and no picture."""
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9"


def safetensors(header: object, data: bytes = b"") -> io.BytesIO:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(struct.pack("<Q", len(text)) + text + data)
