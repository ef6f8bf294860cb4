"""What an NLI model is asked, without the model: costs, and what is known from earlier jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


class Memory(Protocol):
    """Bytes under keys that name their content; see `RunContext`."""

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]: ...

    def remember(self, entries: Mapping[bytes, bytes]) -> None: ...


@dataclass
class NLICost:
    """What an engine has done since it was loaded; a pair has a direction.

    asked: pairs that callers wanted. scored: pairs that went through the model. recalled: pairs
    that another process had scored. forwards: batches. padded_tokens: tokens of these batches,
    padding included.
    """

    asked: int = 0
    scored: int = 0
    recalled: int = 0
    forwards: int = 0
    padded_tokens: int = 0
