"""New images in a zip: `train/CLASS/ROW-COPY.png` with a manifest, as ImageFolder readers take."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef
from methods.rank_distilled_dataset.data.images import read_picture, write_png
from methods.typing import Float32Array

Couple = tuple[int, int]
MANIFEST = "manifest.jsonl"


def file_name(folder: str, row: int, copy: int) -> str:
    """Where an image is in its archive."""
    return f"train/{folder}/{row}-{copy}.png"


def folder_of(name: str) -> str:
    """A class as a folder; what no folder may be called is replaced."""
    kept = "".join(one if one.isalnum() or one in " ._-" else "_" for one in name).strip(" .")
    return kept or "_"


def as_pixels(images: Float32Array) -> np.ndarray:
    """Images (N, C, H, W) from 0 to 1 as bytes (N, H, W, C)."""
    return np.round(np.clip(images, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def written(
    images: Iterable[tuple[Couple, np.ndarray]],
    folders: Sequence[str],
    labels: Mapping[int, int],
    shared: Mapping[str, Any],
) -> bytes:
    """The archive of images (H, W, C) in bytes: equal ones of equal images.

    Args:
        folders: of the classes. labels: class of each row. shared: goes into every line of the
            manifest.
    """
    stream = io.BytesIO()
    lines = []
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:

        def put(name: str, data: bytes) -> None:
            # No time of day in it.
            archive.writestr(zipfile.ZipInfo(name), data)

        for (row, copy), pixels in images:
            kind = labels[row]
            name = file_name(folders[kind], row, copy)
            put(name, write_png(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
            lines.append(
                json.dumps({"file": name, "row": row, "copy": copy, "label": kind, **shared}) + "\n"
            )
        put(MANIFEST, "".join(lines).encode())
    return stream.getvalue()


def read_images(
    archives: Sequence[InputRef],
    wanted: Sequence[Couple],
    shape: tuple[int, int, int],
    ctx: RunContext,
) -> Float32Array:
    """Some images (N, C, H, W) from 0 to 1, as they were written.

    Raises:
        JobError: `internal` where one is in no archive.
    """
    places = {couple: place for place, couple in enumerate(wanted)}
    found = np.zeros((len(wanted), *shape), dtype=np.float32)
    left = set(places)
    for ref in archives:
        ctx.check()
        with ctx.open_input(ref) as reader, zipfile.ZipFile(io.BytesIO(reader.read())) as archive:
            for line in archive.read(MANIFEST).decode().splitlines():
                entry = json.loads(line)
                couple = (entry["row"], entry["copy"])
                if couple not in left:
                    continue
                left.discard(couple)
                pixels = read_picture(archive.read(entry["file"]), entry["file"])
                found[places[couple]] = pixels.transpose(2, 0, 1).astype(np.float32) / 255
    if left:
        raise JobError("internal", f"{len(left):,} new images are in no archive.")
    return found
