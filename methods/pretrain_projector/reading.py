"""The captions of a request, and which of them are kept from training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from methods.context import RunContext
from methods.measure_modality_gap.settings import ImageTextPairs
from methods.row_files import SURROGATES, rows_of


def read_rows(asked: ImageTextPairs, ctx: RunContext) -> list[Any]:
    """All rows, usable or not. Raises `JobError` of a file that has none."""
    return rows_of(ctx, asked, "captions", [asked.text_field], "Set text_field.")


def texts_of(asked: ImageTextPairs, every: Sequence[Any], rows: Sequence[int]) -> list[str]:
    """The captions of usable rows."""
    return [str(every[row][asked.text_field]).translate(SURROGATES) for row in rows]


def is_held_out(caption: str, share: float, seed: int) -> bool:
    """Whether a caption is kept from training: by its text, so that equal ones stay together."""
    digest = hashlib.sha256(f"{seed} {caption}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
