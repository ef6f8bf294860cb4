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

    A random subset's accuracy varies by its draw and by its training, d + t; the candidate is one
    draw, trained R times. Their means differ by a variance of d + t/R + (d + t)/R, which is
    var(random) * (1 + 1/R) - var(own) * (1 - 1/R). It is at least half of its first part: few runs
    can make the second one too large.
    """
    runs = len(random)
    if runs < 2:
        return None
    own_variance, drawn = own.var(ddof=1), random.var(ddof=1)
    variance = drawn * (1 + 1 / runs) - own_variance * (1 - 1 / runs)
    least = max((drawn + own_variance) / runs, drawn * (1 + 1 / runs) / 2)
    variance = max(variance, least)
    return float(student_t.ppf((1 + level) / 2, runs - 1) * math.sqrt(variance))


def win_probabilities(values: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """P(mean of row a > mean of row b) given the runs, [C, C]; ties count half.

    Between equal candidates a value of 0.95 or more for either comes up in one of ten jobs, at any
    number of runs.

    Args:
        values: a score (high is good) of C candidates in R paired runs, R >= 2, [C, R].
    """
    means = _drawn(values, draws, rng)
    higher = (means[:, None, :] > means[None, :, :]).mean(axis=2)
    equal = (means[:, None, :] == means[None, :, :]).mean(axis=2)
    return np.asarray(higher + equal / 2)


def first_probabilities(values: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """P(a row has the highest mean) given the runs, [C]; ties share the first place.

    All candidates compete in it: of C equal ones each has about 1/C.
    """
    means = _drawn(values, draws, rng)
    best = means == means.max(axis=0)
    return np.asarray((best / best.sum(axis=0)).mean(axis=1))


def _drawn(values: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """Means of all rows from their joint posterior, [C, draws]: a multivariate t of R - 1 degrees,
    so that the posterior of a mean paired difference is Student's t around its mean, with its
    standard error as scale."""
    runs = values.shape[1]
    means = values.mean(axis=1, keepdims=True)
    normal = rng.standard_normal((runs, draws)) / math.sqrt(runs * (runs - 1))
    scale = np.sqrt(rng.chisquare(runs - 1, draws) / (runs - 1))
    # Rounding makes means of equal scores differ; a tie has to stay a tie.
    return np.round(means + (values - means) @ normal / scale, 12)
