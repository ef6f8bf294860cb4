"""Who changed what: a record in the transaction of the change itself."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.services.auth import Caller
from models import accounts

#: What of an object counts as its content, by the prefix of its id.
_CONTENT = {
    "job": ("id", "type", "state", "version", "labels", "priority"),
    "file": ("id", "name", "size", "sha256"),
    "key": ("id", "name", "scopes"),
    "whe": ("id", "url", "events", "state"),
}


def content(row: Any) -> dict[str, Any]:
    """What of a row is digested."""
    return {name: getattr(row, name) for name in _CONTENT[row.id.partition("_")[0]]}


def canonical(document: Any) -> bytes:
    """JSON whose bytes depend on the content alone: sorted keys, no blanks, UTF-8 (RFC 8785, but
    numbers are written as Python writes them)."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


class Audit:
    """Writes the trail; a change that is taken back leaves no record."""

    def __init__(self, retention: timedelta) -> None:
        self._retention = retention

    async def record(
        self,
        session: AsyncSession,
        caller: Caller,
        action: str,
        object_id: str,
        before: Any = None,
        after: Any = None,
    ) -> None:
        """Note that the caller did this.

        Args:
            action: `job.create`, `file.delete`, ...
            before, after: the object's row or its `content`; None where there was or is none.
        """
        row = {
            "tenant_id": caller.tenant_id,
            "key_id": caller.key_id,
            "action": action,
            "object_id": object_id,
            "before": _digest(before),
            "after": _digest(after),
            "address": caller.address,
            "request_id": caller.request_id,
        }
        await session.execute(accounts.add_audit(row, self._retention))


def _digest(row: Any) -> str | None:
    if row is None:
        return None
    document = row if isinstance(row, dict) else content(row)
    return hashlib.sha256(canonical(document)).hexdigest()
