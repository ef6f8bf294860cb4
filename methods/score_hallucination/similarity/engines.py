"""What compares answers: models of pairs, and models of single texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from methods.inference.nli_cache import Memory, NLICost
from methods.typing import FloatArray

Check = Callable[[], None]


class PairEngine(Protocol):
    """An NLI model: (P, 3) probabilities of (premise, hypothesis) pairs."""

    cost: NLICost

    def probabilities(
        self, pairs: Sequence[tuple[str, str]], check: Check, memory: Memory | None
    ) -> FloatArray: ...

    def is_long(self, first: str, second: str) -> bool: ...

    def shortened(self, frame: str, pair: tuple[str, str]) -> str: ...


class VectorEngine(Protocol):
    """An embedding model: (N, d) unit vectors of texts."""

    def embed(self, texts: Sequence[str], check: Check) -> FloatArray: ...

    def is_long(self, text: str) -> bool: ...
