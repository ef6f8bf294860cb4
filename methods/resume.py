"""What a job keeps so that a killed attempt is not done again: one way for all methods.

A later attempt of the job finds bytes, arrays and JSON values by name. Nothing is ever torn: a
piece is there whole or not at all.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path
from typing import Any

from methods.arrays.npz import loadz, savez
from methods.context import RunContext
from methods.typing import AnyArray


class ResumeStore:
    """Pieces by name, in the folder of the attempt and with the job.

    Args:
        identity: what the pieces depend on; pieces of something else are not found.
    """

    def __init__(self, ctx: RunContext, identity: str) -> None:
        short = sha256(identity.encode()).hexdigest()[:16]
        self._ctx, self._name = ctx, f"kept-{short}"
        self._folder = ctx.workdir / self._name
        self._folder.mkdir(exist_ok=True)

    def path(self, name: str) -> Path:
        """Where a piece of this attempt is, or would be."""
        return self._folder / name

    def keep(self, name: str, data: bytes) -> None:
        """Keep bytes, however many."""
        path = self.path(name)
        part = path.with_suffix(".part")
        part.write_bytes(data)
        os.replace(part, path)
        self._ctx.keep_file(f"{self._name}/{name}", path)

    def find(self, name: str) -> bytes | None:
        """The bytes that this or an earlier attempt kept."""
        path = self.path(name)
        if not path.exists():
            kept = self._ctx.kept_file(f"{self._name}/{name}")
            if kept is None:
                return None
            path.write_bytes(kept.read_bytes())
        return path.read_bytes()

    def keep_folder(self, name: str, folder: Path, without: Collection[str] = ()) -> None:
        """Keep the files of a folder, of any size, but for those of some names."""
        path = self.path(name)
        with tarfile.open(path, "w") as archive:
            for file in sorted(one for one in folder.rglob("*") if one.is_file()):
                if file.name not in without:
                    archive.add(file, file.relative_to(folder).as_posix())
        self._ctx.keep_file(f"{self._name}/{name}", path)
        path.unlink()

    def find_folder(self, name: str, target: Path) -> bool:
        """Put the files of a kept folder into another one; whether there were any."""
        kept = self._ctx.kept_file(f"{self._name}/{name}")
        if kept is None:
            return False
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(kept) as archive:
            archive.extractall(target, filter="data")
        return True

    def keep_arrays(self, name: str, **arrays: AnyArray) -> None:
        """Keep arrays to the last bit."""
        self.keep(name, savez(**arrays))

    def find_arrays(self, name: str) -> dict[str, AnyArray] | None:
        """The arrays that this or an earlier attempt kept."""
        data = self.find(name)
        return None if data is None else loadz(data)

    def keep_value(self, name: str, value: Any) -> None:
        """Keep a JSON value of some kilobytes; for more there are files."""
        self._ctx.checkpoint(f"{self._name}/{name}", value)

    def find_value(self, name: str) -> Any | None:
        """The JSON value that this or an earlier attempt kept."""
        return self._ctx.restore(f"{self._name}/{name}")
