"""Who changed what: a record in the transaction of the change itself."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.services.auth import Caller
from models.queries import accounts

#: What of an object counts as its content.
_JOB = ("id", "type", "state", "version", "labels", "priority")
_FILE = ("id", "name", "size", "sha256")
_KEY = ("id", "name", "scopes")
_WEBHOOK = ("id", "url", "events", "state", "salt")


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
            before, after: rows of the object; None where there was or is none.
        """
        row = {
            "tenant_id": caller.tenant_id,
            "key_id": caller.key_id,
            "action": action,
            "object_id": object_id,
            "before": _digest(action, before),
            "after": _digest(action, after),
            "address": caller.address,
            "request_id": caller.request_id,
        }
        await session.execute(accounts.add_audit(row, self._retention))


def _digest(action: str, row: Any) -> str | None:
    if row is None:
        return None
    kind = action.partition(".")[0]
    names = {"job": _JOB, "file": _FILE, "key": _KEY, "webhook": _WEBHOOK}[kind]
    return hashlib.sha256(canonical({name: getattr(row, name) for name in names})).hexdigest()
