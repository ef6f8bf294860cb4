"""Draws tokens while `generate` runs, and notes how likely they were."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

from methods.errors import JobError

#: Tokens with their log-probabilities.
Top = list[tuple[int, float]]


class Draw(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token of every row, drawn by its probability; a greedy `generate` takes it.

    One random number a row, by inversion. `torch.multinomial` draws one for every token of the
    vocabulary, which with 262,144 of them took a third of the time.

    seeds: of each row, so that a row does not depend on those beside it; None: of all together.
    """

    def __init__(self, seeds: list[int] | None = None) -> None:
        self._generators = None
        if seeds is not None:
            self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """See `LogitsProcessor`. Raises `JobError('numerical_failure')`."""
        rows, width = scores.shape
        side = math.isqrt(width - 1) + 1
        likely = torch.softmax(scores.float(), dim=-1)
        likely = torch.nn.functional.pad(likely, (0, side * side - width)).view(rows, side, side)
        # Over the sums of blocks and then within one: sums over a vocabulary would lose digits.
        ends = likely.sum(dim=-1).double().cumsum(dim=-1)
        if not ends.isfinite().all():
            raise JobError("numerical_failure", "The model's logits are not finite.")
        where = self._numbers(rows, scores.device) * ends[:, -1:]
        block, start = _first_beyond(ends, where)
        inside = likely[torch.arange(rows, device=scores.device), block[:, 0]].double()
        place, _ = _first_beyond(inside.cumsum(dim=-1), where - start)
        return torch.full_like(scores, -math.inf).scatter_(1, block * side + place, 0.0)

    def _numbers(self, rows: int, device: Any) -> Any:
        """(rows, 1) random numbers from 0 to 1."""
        if self._generators is None:
            return torch.rand(rows, 1, dtype=torch.float64, device=device)
        drawn = [torch.rand(1, dtype=torch.float64, generator=own) for own in self._generators]
        return torch.stack(drawn).to(device)


def _first_beyond(ends: Any, where: Any) -> tuple[Any, Any]:
    """(rows, 1) first places whose end is beyond `where`, which is 0 or more, and their starts.

    An end beyond the one before: what has no probability is never found.
    """
    last = ends[:, -1:]
    place = torch.searchsorted(ends, where.minimum(last.nextafter(last.new_zeros(()))), right=True)
    start = torch.where(place > 0, ends.gather(1, (place - 1).clamp(min=0)), 0.0)
    return place, start


class DrawnLogprobs(LogitsProcessor):  # type: ignore[misc]
    """Notes the log-probability of every drawn token before temperature and nucleus change it.

    likeliest: so many tokens of every place are noted too.
    """

    def __init__(self, likeliest: int) -> None:
        self._before: Any = None
        self._taken: list[Any] = []
        self._likeliest = likeliest
        self._tops: list[tuple[Any, Any]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """See `LogitsProcessor`."""
        self._take(input_ids[:, -1:])
        self._before = torch.log_softmax(scores.float(), dim=-1)
        if self._likeliest:
            values, ids = self._before.topk(min(self._likeliest, scores.shape[-1]), dim=-1)
            self._tops.append((values.tolist(), ids.tolist()))
        return scores

    def top(self, row: int) -> list[Top]:
        """The likeliest tokens of every place of a sequence."""
        return [list(zip(ids[row], values[row], strict=True)) for values, ids in self._tops]

    def _take(self, last: Any) -> None:
        if self._before is not None:
            self._taken.append(self._before.gather(1, last))

    def finish(self, drawn: Any) -> Any:
        """(sequences, steps) log-probabilities."""
        self._take(drawn[:, -1:])
        return torch.cat(self._taken, dim=1)


class Checked(StoppingCriteria):  # type: ignore[misc]
    """Lets a cancelled job leave between two tokens."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """See `StoppingCriteria`."""
        self._check()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)
