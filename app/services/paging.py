"""Opaque cursors over a position in a list that is ordered by time and id."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from app.problems import InvalidRequest
from models.repositories import Position

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
        position = datetime.fromisoformat(moment), str(row_id)
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidRequest("The cursor is not one that this list gave.") from error
    if position[0].tzinfo is None or "\x00" in position[1]:
        raise InvalidRequest("The cursor is not one that this list gave.")
    return position


def split(rows: Sequence[Any], limit: int) -> tuple[Sequence[Any], str | None]:
    """A page and the cursor of the next one, from one row more than the page holds."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], encode(rows[limit - 1])
