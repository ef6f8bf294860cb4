"""Runs against their baselines. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from methods.measure_modality_gap.safety.counting import Under, refusals
from methods.pretrain_projector.child_jobs import RunMade, RunPart
from methods.pretrain_projector.result import RefusalGain, RunCompared, WeightSummary
from methods.responses.counting.rates import paired
from methods.results import Interval
from methods.statistics import student_half_width
from methods.typing import FloatArray


@dataclass
class Trained:
    """A run, and what it left behind.

    Attributes:
        answered: its responses by condition; None: it was not asked.
    """

    name: str
    weight: float
    part: RunPart
    made: RunMade
    answered: Under | None = None


def mean_of(values: FloatArray) -> Interval:
    """A mean with Student's interval."""
    mean = float(values.mean())
    half = student_half_width(values)
    if half is None:
        return Interval(value=mean, low=None, high=None)
    return Interval(value=mean, low=mean - half, high=mean + half)


def caption_loss(made: RunMade) -> Interval:
    """Loss a token over all held-out captions, with the interval of the ratio over pairs."""
    losses, tokens = np.array(made.losses), np.array(made.tokens, dtype=np.float64)
    value = float(losses @ tokens / tokens.sum())
    residual = (losses - value) * tokens / tokens.mean()
    half = student_half_width(residual)
    if half is None:
        return Interval(value=value, low=None, high=None)
    return Interval(value=value, low=value - half, high=value + half)


def compare(run: Trained, baseline: Trained) -> RunCompared:
    """A run against the baseline of its seed."""
    gains = []
    if run.answered is not None and baseline.answered is not None:
        for condition, said in run.answered.items():
            test = paired(refusals(baseline.answered[condition]), refusals(said))
            if test is not None:
                gains.append(RefusalGain(condition=condition, test=test))
    with_images = [
        one.test.difference.value or 0.0 for one in gains if one.condition != "text-only"
    ]
    fid = run.made.input.fid
    return RunCompared(
        name=run.name,
        weight=run.weight,
        seed=run.part.seed,
        caption_loss_rise=mean_of(np.array(run.made.losses) - np.array(baseline.made.losses)),
        fid_fall=baseline.made.input.fid / fid if fid > 0 else None,
        gains=gains,
        mean_gain=float(np.mean(with_images)) if with_images else None,
    )


def by_weight(compared: Sequence[RunCompared]) -> list[WeightSummary]:
    """All seeds of each weight; with one seed the interval over its pairs."""
    found = []
    for weight in dict.fromkeys(one.weight for one in compared):
        own = [one for one in compared if one.weight == weight]
        rises = np.array([one.caption_loss_rise.value for one in own], dtype=np.float64)
        gains = [one.mean_gain for one in own if one.mean_gain is not None]
        found.append(
            WeightSummary(
                weight=weight,
                seeds=len(own),
                caption_loss_rise=own[0].caption_loss_rise if len(own) == 1 else mean_of(rises),
                mean_gain=mean_of(np.array(gains)) if gains else None,
            )
        )
    return found


def choose(
    weights: Sequence[WeightSummary], most_rise: float, usable: Mapping[float, bool]
) -> float | None:
    """The weight with the largest gain among those whose captions cost no more than allowed.

    Args:
        usable: weights whose projectors carry information; a gain of others means nothing.
    """
    held = [
        one
        for one in weights
        if one.mean_gain is not None
        and (one.mean_gain.value or 0.0) > 0
        and (one.caption_loss_rise.value or 0.0) <= most_rise
        and usable[one.weight]
    ]
    return max(held, key=lambda one: one.mean_gain.value or 0.0).weight if held else None  # type: ignore[union-attr]
