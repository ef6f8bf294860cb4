"""Opaque cursors over a position in a list: a time, or a figure, and the id of the last row."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from app.problems import InvalidRequest
from models.queries._statement import Position

MAX_PAGE = 200


def page_size(limit: int) -> int:
    """What is asked for, within bounds; too much is no error."""
    return max(1, min(limit, MAX_PAGE))


def encode(row: Any, by: str | None = None) -> str:
    """The cursor that continues after this row; `by`: the headline figure of the order."""
    place = [row.created_at.isoformat(), row.id] if by is None else [row.sort_value, row.id, by]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def decode(cursor: str | None, by: str | None = None) -> Position | None:
    """The position behind a cursor of a list in this order. Raises `InvalidRequest`."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        mark, row_id, *order = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if order != ([] if by is None else [by]) or b"\0" in row_id.encode():
            raise ValueError(cursor)
        if by is not None:
            value = float(mark)
            if isinstance(mark, str) or not math.isfinite(value):
                raise ValueError(cursor)
            return value, row_id
        position = datetime.fromisoformat(mark)
        if position.tzinfo is None:
            raise ValueError(cursor)
        return position.astimezone(UTC), row_id
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidRequest("The cursor is not one that this list gave.") from error


def split(
    rows: Sequence[Any], limit: int, by: str | None = None
) -> tuple[Sequence[Any], str | None]:
    """A page and the cursor of the next one, from one row more than the page holds."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(rows[limit - 1], by)
