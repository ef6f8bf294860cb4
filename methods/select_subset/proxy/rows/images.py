"""Images of rows: found in an archive or in the row, decoded within limits."""

from __future__ import annotations

import base64
import binascii
import importlib
import posixpath
import tarfile
import threading
import zipfile
from io import BytesIO
from typing import Any, BinaryIO, cast

from methods.arrays.unpacking import DAMAGED, open_zip
from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef

#: A larger picture is a bad row: decoded it would take 4 bytes for each pixel.
MAX_PIXELS = 64_000_000
#: The same for the encoded bytes.
MAX_BYTES = 64 * 1024 * 1024
MAX_MEMBERS = 20_000_000
#: Of a zip archive: all files together, and the list of them (some millions).
MAX_UNPACKED = 1 << 40
MAX_DIRECTORY = 512 << 20
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
_DATA_URI = "data:image/"


class BadImageError(ValueError):
    """An image that is missing or cannot be read."""


def pillow() -> Any:
    """`PIL.Image`, which only jobs with a model need."""
    try:
        return importlib.import_module("PIL.Image")
    except ImportError as error:
        raise JobError(
            "model_unavailable",
            "Images need the package pillow, which this worker does not have.",
            retryable=False,
        ) from error


def decode(data: bytes) -> Any:
    """A picture as an RGB image of PIL; of an animation the first frame.

    Raises:
        BadImageError: it is damaged, of no known format, or beyond the limits.
    """
    module = pillow()
    if len(data) > MAX_BYTES:
        raise BadImageError(f"is larger than {MAX_BYTES} bytes")
    try:
        image = module.open(BytesIO(data), formats=_FORMATS)
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise BadImageError(f"has {width} x {height} pixels, more than {MAX_PIXELS}")
        image.load()
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return image.convert("RGB")
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(f"cannot be decoded ({type(error).__name__})") from error


def embedded(image: Any) -> bytes | str:
    """The bytes of an image that is in its row, else its path.

    Raises:
        BadImageError: a damaged data URI, or neither bytes nor a path.
    """
    if isinstance(image, dict):
        image = image["bytes"] if image.get("bytes") is not None else image.get("path")
    if isinstance(image, (bytes, bytearray)):
        return bytes(image)
    if not isinstance(image, str) or not image:
        raise BadImageError("has neither bytes nor a path")
    if not image.startswith(_DATA_URI):
        return image
    try:
        return base64.b64decode(image.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise BadImageError("is a damaged data URI") from error


class Archive:
    """Image files in a zip archive or an uncompressed tar, read by name from any thread."""

    def __init__(self, ref: InputRef, ctx: RunContext) -> None:
        self._reader = ctx.open_input(ref)
        self._lock = threading.Lock()
        self._zip: zipfile.ZipFile | None = None
        self._places: dict[str, tuple[int, int]] = {}
        start = self._reader.read(4)
        self._reader.seek(0)
        try:
            if start.startswith(b"PK"):
                self._zip = open_zip(self._reader, "The archive", MAX_UNPACKED, MAX_DIRECTORY)
                self._names = {_plain(n): n for n in self._zip.namelist()}
            else:
                self._places = _tar_places(self._reader, ctx)
        except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
            raise JobError(
                "input_invalid",
                f"The images are neither a zip archive nor an uncompressed tar: {error}",
            ) from error

    def read(self, path: str) -> bytes:
        """The bytes of a file. Raises `BadImageError`."""
        name = _plain(path)
        with self._lock:
            if self._zip is not None:
                if name not in self._names:
                    raise BadImageError("is not in the archive")
                try:
                    with self._zip.open(self._names[name]) as member:
                        data = member.read(MAX_BYTES + 1)
                except DAMAGED as error:
                    raise BadImageError("cannot be unpacked") from error
            else:
                if name not in self._places:
                    raise BadImageError("is not in the archive")
                offset, size = self._places[name]
                self._reader.seek(offset)
                data = self._reader.read(min(size, MAX_BYTES + 1))
        if len(data) > MAX_BYTES:
            raise BadImageError(f"is larger than {MAX_BYTES} bytes")
        return data

    def close(self) -> None:
        self._reader.close()


def _plain(path: str) -> str:
    return posixpath.normpath(path).lstrip("/")


def _tar_places(reader: BinaryIO, ctx: RunContext) -> dict[str, tuple[int, int]]:
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=reader, mode="r:") as archive:
        number = 0
        while (member := archive.next()) is not None:
            if number >= MAX_MEMBERS:
                raise JobError("too_large", f"The archive has more than {MAX_MEMBERS} files.")
            if number % 4096 == 0:
                ctx.check()
            if member.isreg():
                places[_plain(member.name)] = (member.offset_data, member.size)
            number += 1
            # The archive would keep every member.
            cast(Any, archive).members.clear()
    return places
