"""PNG in and out without a library; other image files through Pillow where it is installed."""

from __future__ import annotations

import importlib
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.errors import JobError
from methods.typing import ByteArray

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
#: More pixels than this in one image are refused before they are unpacked.
MAX_PIXELS = 4096 * 4096
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def write_png(pixels: ByteArray) -> bytes:
    """Encode [height, width] or [height, width, 3] as PNG; each row takes its best filter."""
    image = pixels[:, :, None] if pixels.ndim == 2 else pixels
    height, width, channels = image.shape
    left = np.zeros_like(image)
    left[:, 1:] = image[:, :-1]
    above = np.zeros_like(image)
    above[1:] = image[:-1]
    rows = np.stack([image, image - left, image - above]).reshape(3, height, -1)
    # The usual heuristic: residues as signed bytes, the smallest sum of magnitudes.
    cost = np.abs(rows.view(np.int8).astype(np.int32)).sum(axis=2)
    chosen = cost.argmin(axis=0)
    lines = np.empty((height, 1 + width * channels), dtype=np.uint8)
    lines[:, 0], lines[:, 1:] = chosen, rows[chosen, np.arange(height)]
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), 9)
    parts = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return PNG_MAGIC + b"".join(_png_part(kind, data) for kind, data in parts)


def _png_part(kind: bytes, data: bytes) -> bytes:
    check = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)


def read_picture(data: bytes, label: str) -> ByteArray:
    """Decode one image file to [height, width, 3] (or 1 channel for gray), 8 bits.

    Raises:
        JobError: `input_invalid` for a damaged or unusual file, `too_large` by its header,
            `input_unreadable` for JPEG where Pillow is not installed.
    """
    if data.startswith(PNG_MAGIC):
        try:
            return _read_png(data, label)
        except (struct.error, zlib.error, IndexError, ValueError) as error:
            raise JobError("input_invalid", f"{label} is a damaged PNG: {error}") from error
    if data.startswith(b"\xff\xd8\xff"):
        return _read_with_pillow(data, label)
    raise JobError("input_invalid", f"{label} is neither PNG nor JPEG.")


def _read_with_pillow(data: bytes, label: str) -> ByteArray:
    try:
        # By name: optional, and untyped here.
        pillow: Any = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise JobError(
            "input_unreadable",
            f"{label} is a JPEG and Pillow is not installed on this worker; upload PNG or npz.",
        ) from error
    try:
        with pillow.open(BytesIO(data), formats=["JPEG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise JobError("too_large", f"{label} has {image.width}x{image.height} pixels.")
            found = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    except pillow.DecompressionBombError as error:
        raise JobError("too_large", f"{label} has too many pixels: {error}") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise JobError("input_invalid", f"{label} is a damaged JPEG: {error}") from error
    return found.reshape(*found.shape[:2], -1)


def _read_png(data: bytes, label: str) -> ByteArray:
    place, palette, body, header = 8, None, [], b""
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        part = data[place + 8 : place + 8 + length]
        place += 12 + length
        if kind == b"IHDR":
            header = part
        elif kind == b"PLTE":
            palette = np.frombuffer(part, dtype=np.uint8).reshape(-1, 3)
        elif kind == b"IDAT":
            body.append(part)
        elif kind == b"IEND":
            break
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if width * height > MAX_PIXELS:
        raise JobError("too_large", f"{label} has {width}x{height} pixels.")
    if depth != 8 or interlace or colour not in _CHANNELS:
        raise JobError("input_invalid", f"{label}: only PNG of 8 bits, not interlaced, is read.")
    channels = _CHANNELS[colour]
    wanted = height * (1 + width * channels)
    # Never more than the header says, whatever the stream would unpack to.
    raw = zlib.decompressobj().decompress(b"".join(body), wanted)
    if len(raw) != wanted:
        raise ValueError(f"it ends after {len(raw)} of {wanted} bytes")
    lines = np.frombuffer(raw, dtype=np.uint8).reshape(height, 1 + width * channels)
    image = _unfilter(lines[:, 0], lines[:, 1:].reshape(height, width, channels))
    if colour == 3:
        if palette is None or image.max() >= len(palette):
            raise ValueError("a colour is not in its palette")
        return palette[image[:, :, 0]]
    return image[:, :, :1] if colour in (0, 4) else image[:, :, :3]


def _unfilter(kinds: ByteArray, lines: ByteArray) -> ByteArray:
    image = np.zeros_like(lines)
    above = np.zeros_like(lines[0])
    for row, kind in enumerate(kinds.tolist()):
        line = lines[row]
        if kind == 0:
            above = line
        elif kind == 1:
            above = np.cumsum(line, axis=0, dtype=np.uint8)
        elif kind == 2:
            above = line + above
        elif kind in (3, 4):
            above = _unfilter_slowly(kind, line, above)
        else:
            raise ValueError(f"unknown filter {kind}")
        image[row] = above
    return image


def _unfilter_slowly(kind: int, line: ByteArray, above: ByteArray) -> ByteArray:
    """Filters 3 (mean) and 4 (Paeth) need the pixel to the left first."""
    channels = line.shape[1]
    out = [0] * channels + line.reshape(-1).tolist()
    up = [0] * channels + above.reshape(-1).tolist()
    for place in range(channels, len(out)):
        a, b, c = out[place - channels], up[place], up[place - channels]
        if kind == 3:
            guess = (a + b) // 2
        else:
            base = a + b - c
            pa, pb, pc = abs(base - a), abs(base - b), abs(base - c)
            guess = a if pa <= pb and pa <= pc else b if pb <= pc else c
        out[place] = (out[place] + guess) & 255
    return np.array(out[channels:], dtype=np.uint8).reshape(line.shape)


def grid(images: NDArray[np.floating], columns: int, scale: int = 1) -> ByteArray:
    """Images [N, channels, height, width] with values from 0 to 1, side by side with a border.

    Returns [rows, columns] for one channel and [rows, columns, 3] otherwise (the first three).
    """
    count, channels, height, width = images.shape
    shown = images[:, : 3 if channels >= 3 else 1]
    pixels = np.round(np.clip(np.nan_to_num(shown), 0, 1) * 255).astype(np.uint8)
    pixels = pixels.repeat(scale, axis=2).repeat(scale, axis=3)
    height, width = height * scale + 1, width * scale + 1
    rows = -(-count // columns)
    canvas = np.full((rows * height + 1, columns * width + 1, shown.shape[1]), 255, dtype=np.uint8)
    for place in range(count):
        top, left = place // columns * height + 1, place % columns * width + 1
        canvas[top : top + height - 1, left : left + width - 1] = pixels[place].transpose(1, 2, 0)
    return canvas[:, :, 0] if canvas.shape[2] == 1 else canvas
