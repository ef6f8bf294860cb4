"""Scores of labelled items as columns, all scorers over the same matrices."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.score_hallucination.answers.adapters import answers_of, options_of
from methods.score_hallucination.answers.graders import GRADERS, SQUAD
from methods.score_hallucination.answers.item_reader import Items, chunks
from methods.score_hallucination.answers.judges import collect_judgements
from methods.score_hallucination.evaluation.spec import LabelCounts, LabelledSpec
from methods.score_hallucination.result import JudgingResult
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.schema.options import ScorerName
from methods.score_hallucination.scoring.pipeline import SCORERS, score
from methods.typing import FloatArray, IntArray


@dataclass(frozen=True)
class Labelled:
    """The labelled items of a job, N of them, in order.

    values, confidences: (N,) for each scorer, NaN where undefined. right: (N,) 1 = right,
    0 = hallucinated. sizes: (N,) numbers of answers. reasons: for each scorer, why it is undefined,
    and how often. rows: (N,) positions among all items. judging: what judges were asked.
    """

    values: dict[str, FloatArray]
    confidences: dict[str, FloatArray]
    right: FloatArray
    sizes: IntArray
    rows: IntArray
    reasons: dict[str, Counter[str]]
    counts: LabelCounts
    judging: JudgingResult | None = None

    def uncertainty(self, name: str) -> FloatArray:
        """(N,) the scorer's value, turned so that higher is more suspicious."""
        value = self.values[name]
        return -value if SCORERS[name].direction == "confidence" else value


def read(spec: LabelledSpec, scorers: Sequence[ScorerName], ctx: RunContext) -> Labelled:
    """Read, label and score the items of a job.

    Raises:
        JobError: `input_invalid` for bad rows, or when no item has a label.
    """
    scoring = spec.scoring(scorers)
    items, options = Items(scoring, ctx), options_of(scoring, ctx)
    judgements, judging = collect_judgements(
        items, scoring, ctx, wanted=lambda item: label_of(item, spec)[0] is not None
    )
    columns, sources, done = _Columns(scorers), Counter[str](), 0
    for chunk in chunks(items):
        labels = [label_of(item, spec) for item in chunk]
        sources.update(source for _, source in labels if source is not None)
        known = [k for k, (label, _) in enumerate(labels) if label is not None]
        answers = [answers_of(chunk[k], judgements.scores(chunk[k], done + k)) for k in known]
        scored = score(answers, options, ctx.check) if known else []
        for k, result in zip(known, scored, strict=True):
            columns.rows.append(done + k)
            columns.right.append(1.0 - (labels[k][0] or 0))
            columns.sizes.append(result.n)
            columns.add(result.values, result.confidences, result.reasons)
        done += len(chunk)
        ctx.progress("scoring", done, items.count)
    if not columns.right:
        raise JobError("input_invalid", _no_label(spec))
    return replace(columns.labelled(done, sources), judging=judging)


def _no_label(spec: LabelledSpec) -> str:
    wanted = {
        "given": "a `label`",
        "graded": "an `answer` with `references`",
        "given_or_graded": "a `label`, or an `answer` with `references`",
    }
    return f"No item has {wanted[spec.labels]}."


def label_of(item: Item, spec: LabelledSpec) -> tuple[int | None, str | None]:
    """1 = hallucinated, 0 = right, and where that comes from; None for both when unknown."""
    if item.label is not None and spec.labels != "graded":
        return item.label, "given"
    references = [reference for reference in item.references or [] if reference.strip()]
    if spec.labels == "given" or item.answer is None or not references:
        return None, None
    graders = GRADERS if spec.grader.compat is None else SQUAD
    grade = graders[spec.grader.name](item.answer.text, references)
    # 2 / 3 from counts of tokens may be a rounding below 2 / 3.
    return int(grade < spec.grader.cut - 1e-12), spec.grader.words


class _Columns:
    """Grows item by item."""

    def __init__(self, scorers: Sequence[str]) -> None:
        self._values = {name: array("d") for name in scorers}
        self._confidences = {name: array("d") for name in scorers}
        self._reasons: dict[str, Counter[str]] = {name: Counter() for name in scorers}
        self.right: list[float] = []
        self.sizes: list[int] = []
        self.rows: list[int] = []

    def add(
        self, values: dict[str, float], confidences: dict[str, float], reasons: dict[str, str]
    ) -> None:
        for name, column in self._values.items():
            column.append(values.get(name, np.nan))
            self._confidences[name].append(confidences.get(name, np.nan))
            if name in reasons:
                self._reasons[name][reasons[name]] += 1

    def labelled(self, n_items: int, sources: Counter[str]) -> Labelled:
        right = np.array(self.right)
        return Labelled(
            values={name: np.array(column) for name, column in self._values.items()},
            confidences={name: np.array(column) for name, column in self._confidences.items()},
            right=right,
            sizes=np.array(self.sizes, dtype=np.int64),
            rows=np.array(self.rows, dtype=np.int64),
            reasons=self._reasons,
            counts=LabelCounts(
                n_items=n_items,
                n_labelled=len(right),
                n_right=int(right.sum()),
                n_hallucinated=int((1 - right).sum()),
                sources=dict(sources),
            ),
        )
