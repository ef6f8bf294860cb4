"""Images of data sets: PNG and JPEG by Pillow, and grids of them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from methods.errors import JobError
from methods.typing import ByteArray

#: More pixels than this in one image are refused before they are unpacked.
MAX_PIXELS = 4096 * 4096


def write_png(pixels: ByteArray) -> bytes:
    """Encode [height, width] or [height, width, 3] as PNG."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()


_KINDS = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"RIFF": "WEBP"}


def read_picture(data: bytes, label: str, size: tuple[int, int] | None = None) -> ByteArray:
    """Decode one image file to [height, width, 3] (or 1 channel for gray), 8 bits.

    Transparency is dropped; 16 bits a channel become 8.

    Args:
        size: height and width to resize it to, by Lanczos.

    Raises:
        JobError: `input_invalid` for a damaged file or another format, `too_large` by its header.
    """
    kind = next((name for magic, name in _KINDS.items() if data.startswith(magic)), None)
    if kind is None:
        raise JobError("input_invalid", f"{label} is none of PNG, JPEG, BMP and WebP.")
    try:
        with Image.open(BytesIO(data), formats=[kind]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise JobError("too_large", f"{label} has {image.width}x{image.height} pixels.")
            pixels = _eight_bits(image)
            if size is not None and pixels.shape[:2] != size:
                shown = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.LANCZOS)
                pixels = np.asarray(shown)
    except Image.DecompressionBombError as error:
        raise JobError("too_large", f"{label} has too many pixels: {error}") from error
    # Pillow raises whatever its decoders stumble over.
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError) as error:
        raise JobError("input_invalid", f"{label} is a damaged {kind}: {error}") from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _eight_bits(image: Image.Image) -> ByteArray:
    if image.mode.startswith("I"):  # 16 bits of gray, whatever Pillow calls them
        return np.asarray(np.asarray(image).astype(np.uint32) // 257, dtype=np.uint8)
    if image.mode in ("1", "L", "LA"):
        return np.asarray(image.convert("L"))
    return np.asarray(image.convert("RGB"))


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
