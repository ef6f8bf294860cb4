"""DD-Ranking's scores (Li et al. 2025, arXiv:2505.13300), on accuracies as fractions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student_t

from methods.typing import FloatArray


def normalise(alpha: ArrayLike) -> FloatArray:
    """(e^alpha - 1/e) / (e - 1/e): [-1, 1] to [0, 1], increasing; 0 becomes 0.26894."""
    return (np.exp(np.asarray(alpha, dtype=np.float64)) - math.exp(-1)) / (math.e - math.exp(-1))


@dataclass(frozen=True)
class LabelRobust:
    """Per run, [R].

    Attributes:
        hlr: accuracy of the full data minus that of the hard-labelled candidate; low is good.
        ior: the candidate's accuracy in its own setting minus that of a random subset's.
        lrs: the label-robust score, from 0 to 1; high is good.
    """

    hlr: FloatArray
    ior: FloatArray
    lrs: FloatArray


def label_robust(
    full: ArrayLike, hard: ArrayLike, own: ArrayLike, random: ArrayLike, weight: float = 0.5
) -> LabelRobust:
    """LRS = normalise(weight * IOR - (1 - weight) * HLR) for each run.

    Args:
        full, hard, own, random: accuracies from 0 to 1, [R] each: the real training set, the
            candidate with hard labels, the candidate in its own setting, a random subset there.
    """
    hlr = np.asarray(full, dtype=np.float64) - np.asarray(hard, dtype=np.float64)
    ior = np.asarray(own, dtype=np.float64) - np.asarray(random, dtype=np.float64)
    return LabelRobust(hlr, ior, normalise(weight * ior - (1 - weight) * hlr))


def augmentation_robust(
    own: ArrayLike, random: ArrayLike, own_bare: ArrayLike, random_bare: ArrayLike, weight: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Gains over random with and without augmentation, and ARS, for each run; all [R].

    ARS = normalise(weight * gain with + (1 - weight) * gain without); high is good.
    """
    gain = np.asarray(own, dtype=np.float64) - np.asarray(random, dtype=np.float64)
    bare = np.asarray(own_bare, dtype=np.float64) - np.asarray(random_bare, dtype=np.float64)
    return gain, bare, normalise(weight * gain + (1 - weight) * bare)


def draw_half_width(own: FloatArray, random: FloatArray, level: float = 0.95) -> float | None:
    """Half of the interval for "the candidate is one more random subset", None below two runs.

    The mean over R runs of one candidate differs from the mean over R random subsets by the draw
    of the candidate too: variance var(random) * (1 + 1/R), where `own` adds its training noise.
    """
    runs = len(random)
    if runs < 2:
        return None
    variance = random.var(ddof=1) * (1 + 1 / runs) + own.var(ddof=1) / runs
    return float(student_t.ppf((1 + level) / 2, runs - 1) * math.sqrt(variance))


def win_probabilities(values: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """P(mean of row a > mean of row b) over resampled runs, [C, C]; ties count half.

    Args:
        values: a score (high is good) of C candidates in R paired runs, [C, R].
    """
    means = _resampled(values, draws, rng)
    higher = (means[:, None, :] > means[None, :, :]).mean(axis=2)
    equal = (means[:, None, :] == means[None, :, :]).mean(axis=2)
    return higher + equal / 2


def first_probabilities(values: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """P(a row has the highest mean) over resampled runs, [C]; ties share the first place."""
    means = _resampled(values, draws, rng)
    best = means == means.max(axis=0)
    return (best / best.sum(axis=0)).mean(axis=1)


def _resampled(values: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """Means over the same resampled runs for all rows, [C, draws]: a paired bootstrap."""
    runs = values.shape[1]
    counts = rng.multinomial(runs, np.full(runs, 1 / runs), size=draws)
    # Rounding makes means of equal scores differ; a tie has to stay a tie.
    return np.round(values @ counts.T / runs, 12)
