"""Which of the made texts are kept, and why the others are not. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from methods.errors import JobError
from methods.synthesize_text.gradients.factors import Target, distances, set_distance
from methods.synthesize_text.gradients.herding import herd, nearest
from methods.synthesize_text.making import Scored, is_reference
from methods.synthesize_text.spec import GradmmParams, LmSelectParams, Spec
from methods.synthesize_text.texts.filters import (
    duplicates,
    official_balance,
    official_top,
    unbalanced,
)
from methods.typing import BoolArray, FloatArray, IntArray


def calibrated(made: list[Scored]) -> list[FloatArray]:
    """(n, labels) probabilities of the label words, less the model's own leaning to one of them.

    Batch calibration (arXiv:2309.17249): over the mean probability of each word among all texts,
    every label counting alike. A small model may say one word of nearly every text.
    """
    prior = np.mean([texts.probabilities.mean(axis=0) for texts in made], axis=0)
    found = []
    for texts in made:
        chances = texts.probabilities / np.maximum(prior, 1e-300)
        found.append(chances / chances.sum(axis=1, keepdims=True))
    return found


@dataclass
class Choice:
    """Of a label.

    Attributes:
        kept: rows in the order in which they were chosen. reasons: of each row, None for kept ones.
        distance: (n,) of each text alone. probabilities: (n, labels), calibrated.
    """

    kept: list[int]
    reasons: list[str | None]
    distance: FloatArray
    probabilities: FloatArray

    def dropped_by(self) -> dict[str, int]:
        """Rows by reason."""
        return dict(Counter(reason for reason in self.reasons if reason is not None))


def choose(
    spec: Spec,
    made: list[Scored],
    targets: list[Target],
    bias: bool,
    names: list[str],
    check: Callable[[], None] = lambda: None,
) -> list[Choice]:
    """Filter and choose the texts of every label.

    Raises:
        JobError: `numerical_failure` where a distance is undefined, or nothing is left of a label.
    """
    choices = []
    chances = calibrated(made)
    for label, (texts, target) in enumerate(zip(made, targets, strict=True)):
        alone = distances_of(names[label], texts, target, bias)
        own = chances[label].argmax(axis=1) == label
        choices.append(Choice([], _filtered(spec, texts, own), alone, chances[label]))
    if is_reference(spec):
        _as_published(spec, made, choices)
    else:
        if spec.filter.balance and _ranks_alone(spec):
            _balance(spec, choices)
        for choice, texts, target in zip(choices, made, targets, strict=True):
            open_ = np.array([k for k, why in enumerate(choice.reasons) if why is None], np.int64)
            picks = _picked(spec, texts, target, choice, open_, bias, check)
            choice.kept = open_[picks].tolist()
    for choice, name in zip(choices, names, strict=True):
        chosen = set(choice.kept)
        for row, why in enumerate(choice.reasons):
            if why is None and row not in chosen:
                choice.reasons[row] = "not_chosen"
        if not choice.kept:
            counts = choice.dropped_by()
            text = ", ".join(f"{count:,} by {why}" for why, count in counts.items())
            raise JobError(
                "numerical_failure",
                f"Every text of the label {name!r} was dropped: {text}. Loosen `filter`, or "
                "change the instruction.",
                details={"label": name, "dropped_by": counts},
            )
    return choices


def distances_of(name: str, texts: Scored, target: Target, bias: bool) -> FloatArray:
    """(n,) distance of each text of a label alone. Raises `JobError` that names the label."""
    return _checked(name, lambda: distances(texts.factors, target, bias))


def set_distance_of(
    name: str, texts: Scored, rows: list[int] | None, target: Target, bias: bool
) -> float:
    """The distance of some of the texts of a label together; likewise."""
    factors = texts.factors if rows is None else texts.factors.rows(np.array(rows, np.int64))
    return float(_checked(name, lambda: np.array(set_distance(factors, target, bias))))


def _checked(name: str, compute: Callable[[], FloatArray]) -> FloatArray:
    try:
        found = compute()
    except ZeroDivisionError as error:
        raise JobError(
            "numerical_failure",
            f"A text of the label {name!r} has a gradient of zero, so its distance is undefined.",
            details={"label": name},
        ) from error
    if not np.isfinite(found).all():
        raise JobError(
            "numerical_failure",
            f"A distance of the label {name!r} is not finite.",
            details={"label": name},
        )
    return found


def _filtered(spec: Spec, texts: Scored, own: BoolArray) -> list[str | None]:
    reasons: list[str | None] = [None] * len(texts)
    by_label = spec.filter.classifier or (
        isinstance(spec.params, LmSelectParams) and "classifier" in spec.params.selector
    )
    repeated = duplicates(texts.texts) if spec.filter.dedupe else [False] * len(texts)
    for row in range(len(texts)):
        loss = texts.log_loss[row]
        if repeated[row]:
            reasons[row] = "duplicate"
        elif by_label and not own[row]:
            reasons[row] = "classifier"
        elif spec.filter.max_log_loss is not None and loss > spec.filter.max_log_loss:
            reasons[row] = "log_loss"
    return reasons


def _ranks_alone(spec: Spec) -> bool:
    """Whether the texts that are nearest each alone are kept."""
    params = spec.params
    return isinstance(params, GradmmParams) or (
        isinstance(params, LmSelectParams) and params.objective == "each"
    )


def _balance(spec: Spec, choices: list[Choice]) -> None:
    rows = [
        (label, row)
        for label, choice in enumerate(choices)
        for row, why in enumerate(choice.reasons)
        if why is None
    ]
    if not rows:
        return
    labels: IntArray = np.array([label for label, _ in rows])
    metric = np.array([choices[label].distance[row] for label, row in rows])
    floors = [min(spec.per_label, int((labels == label).sum())) for label in range(len(choices))]
    for place in unbalanced(metric, labels, floors).tolist():
        label, row = rows[place]
        choices[label].reasons[row] = "balance"


def _picked(
    spec: Spec,
    texts: Scored,
    target: Target,
    choice: Choice,
    open_: IntArray,
    bias: bool,
    check: Callable[[], None],
) -> IntArray:
    params, count = spec.params, spec.per_label
    if isinstance(params, LmSelectParams) and "gradient-herding" in params.selector:
        factors = texts.factors.rows(open_)
        if params.objective == "set":
            return herd(factors, target, count, bias, check)[0]
        return nearest(factors, target, count, bias)[0]
    if isinstance(params, GradmmParams):
        return np.argsort(choice.distance[open_], kind="stable")[:count]
    return np.arange(min(count, len(open_)))


def _as_published(spec: Spec, made: list[Scored], choices: list[Choice]) -> None:
    rows = [
        (label, row)
        for label, choice in enumerate(choices)
        for row, why in enumerate(choice.reasons)
        if why is None
    ]
    texts = [made[label].texts[row] for label, row in rows]
    labels = [label for label, _ in rows]
    metric = [float(choices[label].distance[row]) for label, row in rows]
    top = official_top(texts, labels, metric, spec.per_label)
    kept = top
    if spec.filter.balance and len({labels[place] for place in top}) == 2:
        places = official_balance([labels[k] for k in top], [metric[k] for k in top])
        kept = [top[place] for place in places]
    for place in set(top) - set(kept):
        label, row = rows[place]
        choices[label].reasons[row] = "balance"
    for place in kept:
        label, row = rows[place]
        choices[label].kept.append(row)
