"""Opaque cursors over a position in a list that is ordered by time and id."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from app.problems import InvalidRequest
from models.queries._statement import Position

MAX_PAGE = 200


def page_size(limit: int) -> int:
    """What is asked for, within bounds; too much is no error."""
    return max(1, min(limit, MAX_PAGE))


def encode(row: Any) -> str:
    """The cursor that continues after this row."""
    text = json.dumps([row.created_at.isoformat(), row.id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str | None) -> Position | None:
    """The position behind a cursor. Raises `InvalidRequest`."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment, row_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        position = datetime.fromisoformat(moment)
        if position.tzinfo is None or b"\0" in row_id.encode():
            raise ValueError(cursor)
        return position.astimezone(UTC), row_id
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidRequest("The cursor is not one that this list gave.") from error


def split(rows: Sequence[Any], limit: int) -> tuple[Sequence[Any], str | None]:
    """A page and the cursor of the next one, from one row more than the page holds."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(rows[limit - 1])
