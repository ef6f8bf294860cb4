"""A service of real processes in a folder of its own."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toys.up import Up, start, stop


@pytest.fixture
def folder() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="datassay-up-"))
    parent.chmod(0o711)
    yield parent / "data"
    subprocess.run(["rm", "-rf", str(parent)], check=True)


@pytest.fixture
def up(folder: Path) -> Iterator[Up]:
    running = start(folder)
    yield running
    if running.process.poll() is None:
        stop(running)
