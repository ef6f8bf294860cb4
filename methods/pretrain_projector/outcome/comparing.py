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
from methods.statistics import student_interval


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


def caption_loss(made: RunMade) -> Interval:
    """Loss a token over all held-out captions, with the interval of the ratio over pairs."""
    losses, tokens = np.array(made.losses), np.array(made.tokens, dtype=np.float64)
    value = float(losses @ tokens / tokens.sum())
    # What each pair adds to the ratio: their mean is the ratio itself.
    return student_interval(value + (losses - value) * tokens / tokens.mean())


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
    rises = np.array(run.made.losses) - np.array(baseline.made.losses)
    return RunCompared(
        name=run.name,
        weight=run.weight,
        seed=run.part.seed,
        caption_loss_rise=student_interval(rises),
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
                caption_loss_rise=own[0].caption_loss_rise
                if len(own) == 1
                else student_interval(rises),
                mean_gain=student_interval(np.array(gains)) if gains else None,
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
    gains = {
        one.weight: one.mean_gain.value or 0.0
        for one in weights
        if one.mean_gain is not None
        and (one.caption_loss_rise.value or 0.0) <= most_rise
        and usable[one.weight]
    }
    best = max(gains, key=gains.__getitem__, default=None)
    return best if best is not None and gains[best] > 0 else None
