"""What is remembered beyond a job, as `RunContext` offers it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Memory(Protocol):
    """Bytes under keys that name their content; see `RunContext`."""

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]: ...

    def remember(self, entries: Mapping[bytes, bytes]) -> None: ...
