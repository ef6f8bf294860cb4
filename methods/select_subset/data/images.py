"""Images of rows: found in an archive or in the row, decoded within limits."""

from __future__ import annotations

import base64
import binascii
import importlib
import posixpath
import tarfile
import threading
import zipfile
from collections.abc import Collection, Sequence
from io import BytesIO
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from methods.arrays.unpacking import DAMAGED, open_zip
from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef
from methods.select_subset.schema.inputs import TrainingRows

#: A larger picture is a bad row: decoded it would take 4 bytes for each pixel.
MAX_PIXELS = 64_000_000
#: The same for the encoded bytes.
MAX_BYTES = 64 * 1024 * 1024
MAX_MEMBERS = 20_000_000
#: Of a zip archive: all files together, and the list of them (some millions).
MAX_UNPACKED = 1 << 40
MAX_DIRECTORY = 512 << 20
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
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
        image = importlib.import_module("PIL.ImageOps").exif_transpose(image)
        image = _in_eight_bits(image, module)
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")
        return image.convert("RGB")
    except BadImageError:
        raise
    except Exception as error:
        raise BadImageError(f"cannot be decoded ({type(error).__name__})") from error


def _in_eight_bits(image: Any, module: Any) -> Any:
    """Grey levels of 16 bits or of floats as 256 of them, over the range of their kind."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I"):
        levels = np.asarray(image).astype(np.int64)
        if image.mode == "I" and (levels.min() < 0 or levels.max() > 65_535):
            return module.fromarray(_scaled(levels.astype(np.float64)))
        return module.fromarray((levels >> 8).astype(np.uint8))
    if image.mode == "F":
        return module.fromarray(_scaled(np.asarray(image).astype(np.float64)))
    return image


def _scaled(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """From 0 to 1 as it is, any other range from its lowest to its highest level."""
    levels = np.nan_to_num(levels)
    low, high = float(levels.min()), float(levels.max())
    if low < 0 or high > 1:
        levels = (levels - low) / (high - low or 1.0)
    return np.asarray((levels * 255).round().astype(np.uint8))


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


class ImageFiles:
    """The image files of a data set, in one archive or several.

    Args:
        strip_prefix: what paths begin with and names in the archives do not.

    Raises:
        JobError: those of `Archive`.
    """

    def __init__(
        self, refs: Sequence[InputRef], ctx: RunContext, strip_prefix: str | None = None
    ) -> None:
        self._archives: list[Archive] = []
        self._prefix = strip_prefix or ""
        try:
            for ref in refs:
                self._archives.append(Archive(ref, ctx))
        except JobError:
            self.close()
            raise

    @classmethod
    def of(cls, dataset: TrainingRows, ctx: RunContext) -> ImageFiles | None:
        """Those of a data set; None where it has no archive."""
        if dataset.images is None:
            return None
        return cls(dataset.images, ctx, dataset.strip_prefix)

    def read(self, path: str) -> bytes:
        """The bytes of a file, from the first archive that has it. Raises `BadImageError`."""
        wanted = path.removeprefix(self._prefix)
        problem = BadImageError("is in no archive")
        for archive in self._archives:
            try:
                return archive.read(wanted)
            except BadImageError as error:
                problem = error
        raise problem

    def close(self) -> None:
        """Close the archives."""
        for archive in self._archives:
            archive.close()


class Archive:
    """Image files in a zip archive or an uncompressed tar, read by name from any thread."""

    def __init__(self, ref: InputRef, ctx: RunContext) -> None:
        self._reader = ctx.open_input(ref)
        self._lock = threading.Lock()
        self._zip: zipfile.ZipFile | None = None
        self._places: dict[str, tuple[int, int]] = {}
        self._names: dict[str, str] = {}
        self._moves: list[tuple[str, str]] = []
        self._ends: dict[str, list[str]] | None = None
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
        with self._lock:
            name = self._name(_plain(path))
            if self._zip is not None:
                try:
                    with self._zip.open(self._names[name]) as member:
                        data = member.read(MAX_BYTES + 1)
                except DAMAGED as error:
                    raise BadImageError("cannot be unpacked") from error
            else:
                offset, size = self._places[name]
                self._reader.seek(offset)
                data = self._reader.read(min(size, MAX_BYTES + 1))
        if len(data) > MAX_BYTES:
            raise BadImageError(f"is larger than {MAX_BYTES} bytes")
        return data

    def _name(self, name: str) -> str:
        """A file's name in the archive, whose folders above or below may be others than the row's.

        One folder is put before, or left out, for all rows alike: that of the first row that needs
        it.
        """
        known = self._names if self._zip is not None else self._places
        if name in known:
            return name
        for before, left_out in self._moves:
            moved = before + name.removeprefix(left_out)
            if name.startswith(left_out) and moved in known:
                return moved
        found = self._similar(name, known)
        if found is None:
            shown = next(iter(known), "no file")
            raise BadImageError(f"is not in the archive, which has {shown}")
        parts, own = found.split("/"), name.split("/")
        same = 0
        while same < min(len(parts), len(own)) and parts[-1 - same] == own[-1 - same]:
            same += 1
        before = "/".join(parts[: len(parts) - same])
        left_out = "/".join(own[: len(own) - same])
        self._moves.append((f"{before}/" if before else "", f"{left_out}/" if left_out else ""))
        return found

    def _similar(self, name: str, known: Collection[str]) -> str | None:
        """The only file whose path ends as this one does, from the last folder on."""
        if self._ends is None:
            self._ends = {}
            for one in known:
                self._ends.setdefault(_tail(one), []).append(one)
        candidates = [
            one
            for one in self._ends.get(_tail(name), ())
            if one.endswith("/" + name) or name.endswith("/" + one) or "/" in _tail(name)
        ]
        return candidates[0] if len(candidates) == 1 else None

    def close(self) -> None:
        self._reader.close()


def _tail(name: str) -> str:
    """The last folder and the file of a path."""
    return "/".join(name.split("/")[-2:])


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
