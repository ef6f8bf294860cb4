"""What reports show of results with scores, such as those of score-hallucination."""

from __future__ import annotations

import heapq
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

#: Metrics of an evaluation in the order of the columns, with their headings.
METRICS = {"auroc": "AUROC", "auarc": "AUARC", "prr": "PRR"}

_CUE = re.compile(r"\s+\w{1,12}:$")


class Estimate(NamedTuple):
    """A figure with its bootstrap interval; anything may be unknown."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Such as "0.812 [0.744, 0.871]"."""
        if self.value is None:
            return "–"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class ScorerSummary:
    """One scorer over all items; `metrics` is empty when no item was labelled."""

    name: str
    n_valid: int
    mean: float | None
    median: float | None
    n_labelled: int
    metrics: dict[str, Estimate]


class Suspect(NamedTuple):
    """An item and the score that it is ranked by."""

    item: dict[str, Any]
    value: float
    confidence: float | None


class Ranking:
    """Keeps the items that one scorer suspects most, whatever the number of items.

    Args:
        summary: The summary of the result.
        by: Name of the scorer; default: the one with the best AUROC, else the first.
        top: How many items to keep.

    Attributes:
        scorer: The scorer's name, None when the result has no scores.
    """

    def __init__(self, summary: Mapping[str, Any], *, by: str | None, top: int) -> None:
        self.scorer = by or _best_scorer(scorer_summaries(summary))
        self._top = top
        self._heap: list[tuple[float, int, Suspect]] = []
        self._order = count(0, -1)

    def add(self, item: dict[str, Any]) -> None:
        """Take an item into account; one without a valid score is passed over."""
        score = (item.get("scores") or {}).get(self.scorer)
        if not score or not score.get("valid", True) or score.get("value") is None:
            return
        value = float(score["value"])
        suspicion = value if score.get("direction", "uncertainty") == "uncertainty" else -value
        # Of equal scores the earlier item stays, so reports do not change from run to run.
        entry = (suspicion, next(self._order), Suspect(item, value, score.get("confidence")))
        if len(self._heap) < self._top:
            heapq.heappush(self._heap, entry)
        elif self._heap:
            heapq.heappushpop(self._heap, entry)

    @property
    def suspects(self) -> list[Suspect]:
        """The items kept, the most suspicious first."""
        return [suspect for _, _, suspect in sorted(self._heap, reverse=True)]


def scorer_summaries(summary: Mapping[str, Any]) -> list[ScorerSummary]:
    """The scorers of a summary; none for results without scores."""
    return [_scorer(name, entry) for name, entry in (summary.get("scorers") or {}).items()]


def meanings(item: Mapping[str, Any]) -> str:
    """How many different meanings the sampled answers have, such as "3 of 10"."""
    clusters, n = item.get("clusters"), item.get("n")
    if clusters is None or n is None:
        return "–"
    return f"{len(clusters)} of {n}"


def question(prompt: str, width: int) -> str:
    """The part of a prompt that tells items apart: its end, behind instructions and examples.

    A closing cue such as "Answer:" is left out.
    """
    text = _CUE.sub("", " ".join(prompt.split()))
    return text if len(text) <= width else "…" + text[1 - width :]


def _scorer(name: str, entry: Mapping[str, Any]) -> ScorerSummary:
    evaluation = entry.get("evaluation") or {}
    return ScorerSummary(
        name=name,
        n_valid=entry.get("n_valid") or 0,
        mean=entry.get("mean"),
        median=entry.get("median"),
        n_labelled=evaluation.get("n") or 0,
        metrics={key: _estimate(evaluation[key]) for key in METRICS if evaluation.get(key)},
    )


def _estimate(entry: Mapping[str, Any]) -> Estimate:
    return Estimate(entry.get("value"), entry.get("low"), entry.get("high"))


def _best_scorer(scorers: list[ScorerSummary]) -> str | None:
    def auroc(scorer: ScorerSummary) -> float:
        value = scorer.metrics.get("auroc", Estimate()).value
        return -1.0 if value is None else value

    # max() keeps the first of equals: the order of the scorers in the summary decides.
    return max(scorers, key=auroc).name if scorers else None
