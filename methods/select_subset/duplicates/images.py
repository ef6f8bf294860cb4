"""Pictures that look alike, by a perceptual hash."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft

_SIDE, _LOW = 32, 8
_LANCZOS = 1


def perceptual_hash(picture: Any) -> int:
    """64 bits of a picture: which of its 8 x 8 lowest frequencies are above their median.

    It is that of the package imagehash (`phash`): grey, 32 x 32 by Lanczos, a cosine transform.

    Args:
        picture: an image of PIL.
    """
    grey = np.asarray(picture.convert("L").resize((_SIDE, _SIDE), _LANCZOS), dtype=np.float64)
    low = scipy.fft.dct(scipy.fft.dct(grey, axis=0), axis=1)[:_LOW, :_LOW]
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")
