"""Where bytes lie: a local folder by default, any fsspec URL by configuration.

Names under which bytes are stored are made of ids alone; what a client calls its file is a label.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.core import url_to_fs

CHUNK = 1024 * 1024


@dataclass(frozen=True)
class Stored:
    """What was written."""

    key: str
    size: int
    sha256: str


class Storage:
    """A prefix in a file system; `local` says whether it is a folder of this machine.

    Args:
        url: `file:///folder`, a plain path, `s3://bucket/prefix`, ... (the protocol's fsspec
            package must be installed; credentials come from its own environment variables).
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root = url_to_fs(url)
        self.local = "file" in _protocols(self._fs)

    def put(self, key: str, source: BinaryIO) -> Stored:
        """Store a stream under the key; the key appears only when the bytes are complete."""
        target = self._path(key)
        if not self.local:
            return self._copy(key, source, target)
        partial = f"{target}.part"
        try:
            self._create(partial)
            stored = self._copy(key, source, partial)
            os.replace(partial, target)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
        return stored

    def _create(self, path: str) -> None:
        while True:
            self._fs.makedirs(os.path.dirname(path), exist_ok=True)
            try:
                return Path(path).touch()
            except FileNotFoundError:
                continue  # somebody deleted the last other file of the folder, and the folder

    def _copy(self, key: str, source: BinaryIO, target: str) -> Stored:
        digest, size = hashlib.sha256(), 0
        with self._fs.open(target, "wb") as writer:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
                writer.write(chunk)
        return Stored(key, size, digest.hexdigest())

    def open(self, key: str) -> BinaryIO:
        """Open stored bytes. Raises FileNotFoundError."""
        return cast(BinaryIO, self._fs.open(self._path(key), "rb"))

    def local_path(self, key: str) -> Path | None:
        """The file itself, where storage is a folder of this machine."""
        return Path(self._path(key)) if self.local else None

    def delete(self, key: str) -> None:
        """Delete a file or a whole folder; it is no error if nothing is there."""
        path = self._path(key)
        with suppress(FileNotFoundError):  # two may delete the same
            if self._fs.exists(path):
                self._fs.rm(path, recursive=True)
        if self.local:
            self._prune(Path(path).parent)

    def keys(self, older_than: timedelta = timedelta(0)) -> Iterator[str]:
        """All stored keys, or those that were written so long ago."""
        limit = datetime.now(UTC) - older_than
        if self.local:
            # Folder by folder: a listing of everything would have to fit into memory.
            folders = self._fs.walk(self._root, detail=True)
            entries = (info for _, _, files in folders for info in files.values())
        else:
            entries = self._fs.find(self._root, detail=True).values()
        for info in entries:
            if _written(info) < limit:
                yield info["name"][len(self._root) :].lstrip("/")

    def _prune(self, folder: Path) -> None:
        while str(folder).startswith(f"{self._root}/") and folder.is_dir():
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def _path(self, key: str) -> str:
        if key.startswith("/") or ".." in key.split("/"):
            raise ValueError(f"{key!r} is no storage key")
        return f"{self._root}/{key}"


def _written(info: dict[str, Any]) -> datetime:
    # fsspec leaves the name and the form of this field to each file system.
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        match info.get(name):
            case datetime() as moment:
                return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            case float() | int() as seconds:
                return datetime.fromtimestamp(seconds, UTC)
    return datetime.max.replace(tzinfo=UTC)


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def file_key(tenant_id: str, file_id: str) -> str:
    """Where an upload lies."""
    return f"files/{tenant_id}/{file_id}"


def job_prefix(job_id: str) -> str:
    """Where everything of a job lies."""
    return f"jobs/{job_id}"


def kept_prefix(job_id: str) -> str:
    """Where the files lie that an attempt keeps for the next."""
    return f"{job_prefix(job_id)}/kept"


def artifact_key(job_id: str, attempt: int, artifact_id: str) -> str:
    """Where an artifact lies; the attempt is part of it, so a zombie overwrites nothing."""
    return f"{job_prefix(job_id)}/{attempt}/{artifact_id}"
