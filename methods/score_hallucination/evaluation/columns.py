"""Scores of labelled items as columns, all scorers over the same matrices."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.score_hallucination.answers.adapters import answers_of, options_of
from methods.score_hallucination.answers.claims import take_apart
from methods.score_hallucination.answers.graders import GRADERS, SQUAD
from methods.score_hallucination.answers.item_reader import Items, chunks
from methods.score_hallucination.answers.judges import collect_judgements
from methods.score_hallucination.answers.state import AnswerStates
from methods.score_hallucination.evaluation.judge_grader import collect_verdicts
from methods.score_hallucination.evaluation.slices import Slice, Slices
from methods.score_hallucination.evaluation.spec import LabelCounts, LabelledSpec
from methods.score_hallucination.result import JudgingResult
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.schema.options import ScorerName
from methods.score_hallucination.scoring.pipeline import SCORERS, ItemScores, score
from methods.typing import FloatArray, IntArray


@dataclass(frozen=True)
class Labelled:
    """The labelled items of a job, N of them, in order.

    values, confidences: (N,) for each scorer, NaN where undefined. right: (N,) 1 = right,
    0 = hallucinated. sizes: (N,) numbers of answers. reasons: for each scorer, why it is undefined,
    and how often. rows: (N,) positions among all items. group: (N,) items with the same prompt
    have the same number. judging: what judges were asked. slices: of the N items. warnings: of the
    answers. bad_rows: of the file, left out.
    """

    values: dict[str, FloatArray]
    confidences: dict[str, FloatArray]
    right: FloatArray
    sizes: IntArray
    rows: IntArray
    group: IntArray
    reasons: dict[str, Counter[str]]
    counts: LabelCounts
    judging: JudgingResult | None = None
    slices: list[Slice] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bad_rows: int = 0

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
    verdicts = None
    if spec.grader.name == "judge" and spec.labels != "given":
        verdicts = collect_verdicts(items, items.count, spec.grader, ctx)

    def label(item: Item, number: int) -> tuple[int | None, str | None]:
        return label_of(item, spec, None if verdicts is None else verdicts.grade(number))

    labelled: list[bool] = []
    if spec.judges:
        labelled = [label(item, number)[0] is not None for number, item in enumerate(items)]
    judgements, judging = collect_judgements(
        items, scoring, ctx, wanted=lambda number: labelled[number]
    )
    units = take_apart(items, items.count, scoring, ctx)
    columns, sources, done = _Columns(scorers, spec.slices), Counter[str](), 0
    for chunk in chunks(items):
        labels = [label(item, done + k) for k, item in enumerate(chunk)]
        for k, item in enumerate(chunk):
            if verdicts is not None:
                verdicts.compare(item, done + k)
        sources.update(source for _, source in labels if source is not None)
        known = [k for k, (label, _) in enumerate(labels) if label is not None]
        answers = [
            answers_of(
                chunk[k],
                judgements.scores(chunk[k], done + k),
                [unit.text for unit in units.of(chunk[k], done + k)],
            )
            for k in known
        ]
        scored = score(answers, options, ctx.check) if known else []
        for k, result in zip(known, scored, strict=True):
            columns.rows.append(done + k)
            columns.right.append(1.0 - (labels[k][0] or 0))
            columns.sizes.append(result.n)
            columns.add(result.values, result.confidences, result.reasons)
            columns.note(chunk[k], result)
        done += len(chunk)
        ctx.progress("scoring", done, items.count)
    if not columns.right:
        raise JobError("input_invalid", _no_label(spec))
    found = replace(
        columns.labelled(done, sources),
        judging=judging,
        slices=list(columns.slices),
        warnings=[*columns.states.warnings(), *columns.slices.warnings()],
        bad_rows=items.bad,
    )
    if verdicts is not None:
        found.counts.judge = verdicts.agreement(spec.grader, ctx)
    return found


def _no_label(spec: LabelledSpec) -> str:
    wanted = {
        "given": "a `label`",
        "graded": "an `answer` with `references`",
        "given_or_graded": "a `label`, or an `answer` with `references`",
    }
    return f"No item has {wanted[spec.labels]}."


def label_of(
    item: Item, spec: LabelledSpec, verdict: float | None = None
) -> tuple[int | None, str | None]:
    """1 = hallucinated, 0 = right, and where that comes from; None for both when unknown.

    Args:
        verdict: 1 right, 0 wrong, of a model that grades.
    """
    if item.label is not None and spec.labels != "graded":
        return item.label, "given"
    if spec.grader.name == "judge":
        known = spec.labels != "given" and verdict is not None
        return (1 - int(verdict or 0), spec.grader.words) if known else (None, None)
    references = [reference for reference in item.references or [] if reference.strip()]
    if spec.labels == "given" or item.answer is None or not references:
        return None, None
    graders = GRADERS if spec.grader.compat is None else SQUAD
    grade = graders[spec.grader.name](item.answer.text, references)
    # 2 / 3 from counts of tokens may be a rounding below 2 / 3.
    return int(grade < spec.grader.cut - 1e-12), spec.grader.words


class _Columns:
    """Grows item by item."""

    def __init__(self, scorers: Sequence[str], slices: Sequence[str]) -> None:
        self.slices, self.states = Slices(slices), AnswerStates()
        self.groups: dict[str, int] = {}
        self.group: list[int] = []
        self._values = {name: array("d") for name in scorers}
        self._confidences = {name: array("d") for name in scorers}
        self._reasons: dict[str, Counter[str]] = {name: Counter() for name in scorers}
        self.right: list[float] = []
        self.sizes: list[int] = []
        self.rows: list[int] = []

    def note(self, item: Item, scored: ItemScores) -> None:
        """What the item is part of: slices, and those with the same prompt."""
        self.slices.add(item)
        self.states.add(item, scored, True)
        key = item.question or f"\0{len(self.group)}"
        self.group.append(self.groups.setdefault(key, len(self.groups)))

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
            group=np.array(self.group, dtype=np.int64),
            reasons=self._reasons,
            counts=LabelCounts(
                n_items=n_items,
                n_labelled=len(right),
                n_right=int(right.sum()),
                n_hallucinated=int((1 - right).sum()),
                sources=dict(sources),
            ),
        )
