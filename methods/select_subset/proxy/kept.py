"""What a job keeps so that a killed attempt is not done again."""

from __future__ import annotations

import base64
import os
from hashlib import sha256
from pathlib import Path

from methods.context import RunContext

#: A larger piece stays in the folder of the attempt only.
MAX_PIECE = 2 * 1024 * 1024
#: What all pieces of a job may take among the job's checkpoints.
MAX_TOTAL = 32 * 1024 * 1024


class Kept:
    """Bytes by name, kept in the folder of the attempt and, where small enough, with the job.

    The folder is fast and has no limit, and a local run finds it again. A service deletes it with
    the attempt; there only what fits into the checkpoints of the job survives.

    Args:
        identity: what the pieces depend on; pieces of something else are not found.
        beside: others of the same job, which share its limit.
    """

    def __init__(self, ctx: RunContext, identity: str, beside: Kept | None = None) -> None:
        self._ctx, self._identity = ctx, identity
        self._spent: list[int] = beside._spent if beside is not None else []
        self._folder = ctx.workdir / f"proxy-{sha256(identity.encode()).hexdigest()[:16]}"
        self._folder.mkdir(exist_ok=True)

    def path(self, name: str) -> Path:
        """Where a piece is, or would be."""
        return self._folder / name

    def keep(self, name: str, data: bytes) -> None:
        """Keep a piece; a torn file of a killed attempt is never found."""
        path = self.path(name)
        part = path.with_suffix(".part")
        part.write_bytes(data)
        os.replace(part, path)
        if len(data) <= MAX_PIECE and sum(self._spent) + len(data) <= MAX_TOTAL:
            self._spent.append(len(data))
            text = base64.b64encode(data).decode()
            self._ctx.checkpoint(self._key(name), {"of": self._identity, "data": text})

    def find(self, name: str) -> bytes | None:
        """A piece of this or an earlier attempt."""
        path = self.path(name)
        if path.exists():
            return path.read_bytes()
        found = self._ctx.restore(self._key(name))
        if found is None or found["of"] != self._identity:
            return None
        data = base64.b64decode(found["data"])
        self._spent.append(len(data))
        path.write_bytes(data)
        return data

    def _key(self, name: str) -> str:
        return f"proxy/{name}"
