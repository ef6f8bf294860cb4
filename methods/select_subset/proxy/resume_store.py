"""What a job keeps so that a killed attempt is not done again."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from methods.context import RunContext


class Kept:
    """Bytes by name, in the folder of the attempt and with the job.

    Args:
        identity: what the pieces depend on; pieces of something else are not found.
    """

    def __init__(self, ctx: RunContext, identity: str) -> None:
        short = sha256(identity.encode()).hexdigest()[:16]
        self._ctx, self._name = ctx, f"proxy-{short}"
        self._folder = ctx.workdir / self._name
        self._folder.mkdir(exist_ok=True)

    def path(self, name: str) -> Path:
        """Where a piece of this attempt is, or would be."""
        return self._folder / name

    def keep(self, name: str, data: bytes) -> None:
        """Keep a piece; a torn file of a killed attempt is never found."""
        path = self.path(name)
        part = path.with_suffix(".part")
        part.write_bytes(data)
        os.replace(part, path)
        self._ctx.keep_file(f"{self._name}/{name}", path)

    def find(self, name: str) -> bytes | None:
        """A piece of this or an earlier attempt."""
        path = self.path(name)
        if not path.exists():
            kept = self._ctx.kept_file(f"{self._name}/{name}")
            if kept is None:
                return None
            path.write_bytes(kept.read_bytes())
        return path.read_bytes()
