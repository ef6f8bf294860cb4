"""A contact sheet: example images of some clusters, the chosen ones framed."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np

from methods.select_subset.algorithms.budgets import Outcome
from methods.select_subset.data.images import BadImageError, decode, pillow
from methods.select_subset.proxy.rows.spool import Spool

_CLUSTERS, _EXAMPLES = 8, 8
_SIDE, _GAP, _TITLE = 112, 6, 16
_FRAME = (30, 140, 60)


def contact_sheet(outcome: Outcome, spool: Spool) -> bytes | None:
    """Up to 8 images of each of up to 8 clusters, from the largest to the smallest, as PNG.

    The first half of a line are chosen rows in the method's order, framed; the rest are others.
    Without clusters there is one line. None where no row has an image.
    """
    lines = [(name, images) for name, rows in _lines(outcome) if (images := _images(rows, spool))]
    if not lines:
        return None
    width = _GAP + _EXAMPLES * (_SIDE + _GAP)
    sheet = pillow().new("RGB", (width, len(lines) * (_TITLE + _SIDE + 2 * _GAP)), "white")
    draw = importlib.import_module("PIL.ImageDraw").Draw(sheet)
    top = 0
    for name, images in lines:
        draw.text((_GAP, top + 2), name, fill="black")
        for place, (image, chosen) in enumerate(images):
            left = _GAP + place * (_SIDE + _GAP)
            image.thumbnail((_SIDE, _SIDE))
            sheet.paste(image, (left, top + _TITLE))
            if chosen:
                right, bottom = left + image.width + 1, top + _TITLE + image.height + 1
                draw.rectangle((left - 2, top + _TITLE - 2, right, bottom), outline=_FRAME, width=2)
        top += _TITLE + _SIDE + 2 * _GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _lines(outcome: Outcome) -> list[tuple[str, list[tuple[int, bool]]]]:
    """Title and rows of each line; a row is chosen or not."""
    clusters = outcome.some_clusters(_CLUSTERS)
    if not clusters:
        others = np.setdiff1d(outcome.candidates, outcome.rows)
        return [("chosen and other rows", _mixed(outcome.rows, others))]
    found = []
    for cluster in clusters:
        name = f"cluster {cluster}: {outcome.quotas[cluster]} of {outcome.sizes[cluster]} rows"
        found.append((name, _mixed(*outcome.members(cluster))))
    return found


def _mixed(taken: Any, others: Any) -> list[tuple[int, bool]]:
    few = max(_EXAMPLES // 2, _EXAMPLES - len(others))
    rows = [(int(row), True) for row in taken[:few]]
    return rows + [(int(row), False) for row in others[: _EXAMPLES - len(rows)]]


def _images(rows: list[tuple[int, bool]], spool: Spool) -> list[tuple[Any, bool]]:
    """The first image of each row that has one."""
    found = []
    for row, chosen in rows:
        try:
            images = spool.read(row)[1] if spool.size(row) else []
            if images:
                found.append((decode(images[0]), chosen))
        except BadImageError:
            continue
    return found
