"""Folders of running attempts, on this machine's temporary disk, that outlive no worker."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Scratch:
    """A folder of this worker; those of workers that were killed are deleted on the way.

    A worker holds a lock on its folder, which the kernel gives back however the worker dies.
    """

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir()) / f"datassay-work-{os.geteuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
        # Looking at a folder's lock and making one's own exclude each other.
        with _locked(root):
            for folder in root.iterdir():
                _delete_if_dead(folder)
            self._folder = Path(tempfile.mkdtemp(dir=root))
            self._lock = _lock(self._folder)

    @contextmanager
    def folder(self, job_id: str) -> Iterator[Path]:
        """An empty folder, deleted at the end."""
        folder = Path(tempfile.mkdtemp(prefix=f"{job_id}-", dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Give the folder back."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)


def _lock(folder: Path, how: int = fcntl.LOCK_EX) -> int:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = _lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _delete_if_dead(folder: Path) -> None:
    try:
        descriptor = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)
