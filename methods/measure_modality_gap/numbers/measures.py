"""Distances of two clouds beside Fréchet's. All are of tokens as they are, unscaled.

Measures of couples are quadratic in tokens: they are of as many as the caller brings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist, pdist
from scipy.stats import rankdata

from methods.typing import FloatArray, IntArray


@dataclass(frozen=True)
class Couples:
    """Measures of couples of tokens; see `GapLayer` for each."""

    mean_pairwise_l2: float
    chamfer_v_to_t: float
    energy_distance: float
    median_distance: float
    mmd2_biased: float | None
    mmd2_unbiased: float | None


def of_couples(v: FloatArray, t: FloatArray) -> Couples:
    """Measures of all couples of image tokens (r, d) and text tokens (s, d), two each at least.

    The kernel of MMD is exp(-g ||x - y||^2) with g = 1 / (2 m^2), m the median distance of all
    couples of both clouds (Gretton et al. 2012); none where that is 0.
    """
    between, first, second = cdist(v, t), pdist(v), pdist(t)
    r, s = len(v), len(t)
    # Each couple of a cloud is there twice, and a token's distance to itself is 0.
    within_v, within_t = 2 * first.sum() / r**2, 2 * second.sum() / s**2
    median = float(np.median(np.concatenate([between.ravel(), first, second])))
    biased = unbiased = None
    if median > 0:
        gamma = 1 / (2 * median**2)
        cross = float(np.exp(-gamma * between**2).mean())
        alike_v = 2 * float(np.exp(-gamma * first**2).sum())
        alike_t = 2 * float(np.exp(-gamma * second**2).sum())
        biased = (alike_v + r) / r**2 + (alike_t + s) / s**2 - 2 * cross
        unbiased = alike_v / (r * (r - 1)) + alike_t / (s * (s - 1)) - 2 * cross
    return Couples(
        mean_pairwise_l2=float(between.mean()),
        chamfer_v_to_t=float(between.min(axis=1).mean()),
        energy_distance=float(2 * between.mean() - within_v - within_t),
        median_distance=median,
        mmd2_biased=biased,
        mmd2_unbiased=unbiased,
    )


def auc_along(v: FloatArray, t: FloatArray, direction: FloatArray) -> float:
    """Chance that an image token lies further along a direction than a text token; ties half.

    Args:
        v: (r, d). t: (s, d). direction: (d,), from the text's centre to the image's.
    """
    ranks: FloatArray = rankdata(np.concatenate([v @ direction, t @ direction]))
    r, s = len(v), len(t)
    return float((ranks[:r].sum() - r * (r + 1) / 2) / (r * s))


def cosine_distance(a: FloatArray, b: FloatArray) -> float | None:
    """1 less the cosine of two vectors; None where one is 0."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return None if norm == 0 else float(1 - a @ b / norm)


def outlier_rows(norms: FloatArray) -> IntArray:
    """Tokens whose norm is more than 3 sample deviations from the lower median norm.

    Args:
        norms: (n,), two at least.
    """
    middle = np.partition(norms, (len(norms) - 1) // 2)[(len(norms) - 1) // 2]
    return np.flatnonzero(np.abs(norms - middle) > 3 * norms.std(ddof=1))
