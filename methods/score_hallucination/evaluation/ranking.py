"""How well a score finds what is wrong: AUROC, AUARC, PRR, with exact expectations over ties.

Items with equal scores have no order. Every metric here is the expectation over all orders of the
tied items, so a constant score has AUROC 0.5 and PRR 0 whatever the sorting algorithm does.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from methods.results import Interval
from methods.statistics import affordable, drawn_rows, percentile_interval
from methods.typing import FloatArray

METRICS = ("auroc", "auarc", "prr", "prr_area")


def evaluate(uncertainty: FloatArray, quality: FloatArray) -> dict[str, float]:
    """The metrics of one score.

    Args:
        uncertainty: (N,), higher is more suspicious.
        quality: (N,), 1 = right, 0 = wrong, or graded in between.

    Returns:
        `auroc`: probability that a wrong item scores above a right one (binary quality only).
        `auarc`: trapezoid over the accuracy-rejection curve, keeping the least suspicious first.
        `prr_area`: mean over rejection of the min-max normalised quality of what is kept, which
        the SNNE paper calls PRR. `prr`: (area - random) / (oracle - random), 0 = chance,
        1 = oracle (Malinin and Gales 2021). NaN where undefined.
    """
    counts, sums = _grouped(uncertainty, quality)
    values = _metrics(counts[None], sums[None], _binary(quality))
    scaled = _unit(quality)
    area = _curve(counts[None], _grouped(uncertainty, scaled)[1][None])[0]
    oracle = _curve(*(part[None] for part in _grouped(-scaled, scaled)))[0]
    values |= _rejection(area, oracle, np.array([scaled.mean()]))
    return {name: float(values[name][0]) for name in METRICS}


def bootstrap(
    uncertainty: FloatArray, quality: FloatArray, rng: np.random.Generator, resamples: int = 1000
) -> dict[str, Interval]:
    """The metrics with 95 % percentile intervals over resampled items.

    Resamples in which a metric is undefined do not count. Fewer are drawn for very large N, where
    the interval is narrow anyway.
    """
    n = len(quality)
    point = evaluate(uncertainty, quality)
    binary, scaled = _binary(quality), _unit(quality)
    group, groups = _groups(uncertainty)
    oracle_group, oracle_groups = _groups(-scaled)
    drawn: dict[str, list[FloatArray]] = {name: [] for name in METRICS}
    for chosen in drawn_rows(n, affordable(resamples, n), rng, 2_000_000):
        counts, sums = _tally(group[chosen], quality[chosen], groups)
        values = _metrics(counts, sums, binary)
        kept = scaled[chosen]
        area = _curve(counts, _tally(group[chosen], kept, groups)[1])[0]
        oracle = _curve(*_tally(oracle_group[chosen], kept, oracle_groups))[0]
        values |= _rejection(area, oracle, kept.mean(axis=1))
        for name in METRICS:
            drawn[name].append(values[name])
    return {name: percentile_interval(point[name], np.concatenate(drawn[name])) for name in METRICS}


def resampled_auroc(uncertainty: FloatArray, quality: FloatArray, drawn: FloatArray) -> FloatArray:
    """AUROC of resampled items.

    Args:
        uncertainty: (N,). quality: (N,), 1 = right, 0 = wrong.
        drawn: (N, R) how often each item is in each resample; scores that are to be compared share
            it.

    Returns:
        (R,); NaN where a resample has one class only.
    """
    group, _ = _groups(uncertainty)
    right, wrong = quality == 1, quality == 0
    ordered = np.argsort(group[right], kind="stable")
    ranked = group[right][ordered]
    # Row k: how many right items are among the k least suspicious ones.
    below = np.zeros((len(ranked) + 1, drawn.shape[1]))
    np.cumsum(drawn[right][ordered], axis=0, out=below[1:])
    first = np.searchsorted(ranked, group[wrong], side="left")
    last = np.searchsorted(ranked, group[wrong], side="right")
    flagged = drawn[wrong]
    hits = np.einsum("qr,qr->r", flagged, below[first])
    if (first != last).any():
        hits = (hits + np.einsum("qr,qr->r", flagged, below[last])) / 2
    with np.errstate(invalid="ignore"):
        return hits / (flagged.sum(axis=0) * below[-1])


def accuracy_rejection_curve(uncertainty: FloatArray, quality: FloatArray) -> FloatArray:
    """(N,) mean quality of the k least suspicious items, k = 1..N, averaged over tied orders."""
    order = np.argsort(uncertainty, kind="stable")
    group = _groups(uncertainty)[0][order]
    means = np.bincount(group, quality[order]) / np.bincount(group)
    return np.cumsum(means[group]) / np.arange(1, len(quality) + 1)


def roc_curve(
    uncertainty: FloatArray, wrong: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """False and true positive rate at every threshold, from (0, 0) to (1, 1)."""
    counts, hits = _grouped(-uncertainty, wrong.astype(np.float64))
    true, total = np.cumsum(hits), np.cumsum(counts)
    rate = np.concatenate([[0.0], true / true[-1]])
    false = np.concatenate([[0.0], (total - true) / (total[-1] - true[-1])])
    return false, rate


def _groups(score: FloatArray) -> tuple[npt.NDArray[np.int64], int]:
    """Number the groups of equal scores in ascending order; infinity is the largest of all.

    Scores that differ by rounding only are equal on paper and must not be ranked. Rounding is
    relative to the scores themselves: however small they are, different ones are ranked.
    """
    known, inverse = np.unique(score, return_inverse=True)
    with np.errstate(invalid="ignore"):
        step = known[1:] - known[:-1]
        near = step <= 1e-10 * np.maximum(np.abs(known[1:]), np.abs(known[:-1]))
    opens = np.concatenate([[False], ~(near & np.isfinite(step))])
    group = np.cumsum(opens)[inverse].reshape(np.shape(score))
    return group.astype(np.int64), int(opens.sum()) + 1


def _grouped(score: FloatArray, quality: FloatArray) -> tuple[FloatArray, FloatArray]:
    group, size = _groups(score)
    counts, sums = _tally(group[None], quality[None], size)
    return counts[0], sums[0]


def _tally(
    group: npt.NDArray[np.int64], quality: FloatArray, groups: int
) -> tuple[FloatArray, FloatArray]:
    """(R, G) number of items and sum of quality in each group of equal scores."""
    rows = len(group)
    flat = (group + groups * np.arange(rows)[:, None]).ravel()
    size = rows * groups
    counts: FloatArray = np.bincount(flat, minlength=size).astype(np.float64)
    sums: FloatArray = np.bincount(flat, quality.ravel(), size).astype(np.float64)
    return counts.reshape(rows, groups), sums.reshape(rows, groups)


def _metrics(counts: FloatArray, sums: FloatArray, binary: bool) -> dict[str, FloatArray]:
    auroc = _auroc(counts, sums) if binary else np.full(len(counts), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_of_curve, first, last = _curve(counts, sums)
        n = counts.sum(axis=1)
        auarc = (n * mean_of_curve - (first + last) / 2) / (n - 1)
    return {"auroc": auroc, "auarc": np.where(n > 1, auarc, np.nan)}


def _auroc(counts: FloatArray, sums: FloatArray) -> FloatArray:
    """(R,) for (R, G) groups in order; ties count half, NaN where a class is missing."""
    wrong = counts - sums
    below = np.cumsum(sums, axis=1) - sums / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return (wrong * below).sum(axis=1) / (wrong.sum(axis=1) * sums.sum(axis=1))


def _curve(counts: FloatArray, sums: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean, first and last value of the curve of running means, for (R, G) groups in order.

    Within a group of c items with mean m that follows n0 items with sum s0, the expected running
    means are m + (s0 - m n0) / (n0 + k), k = 1..c; harmonic numbers sum them in closed form.
    """
    n = int(counts[0].sum())
    harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, n + 1))])
    after = np.cumsum(counts, axis=1)
    before = after - counts
    mean = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    start = np.cumsum(sums, axis=1) - sums
    spread = harmonic[after.astype(np.int64)] - harmonic[before.astype(np.int64)]
    total = (counts * mean + (start - mean * before) * spread).sum(axis=1)
    lowest = np.argmax(counts > 0, axis=1)
    return total / n, mean[np.arange(len(mean)), lowest], sums.sum(axis=1) / n


def _rejection(area: FloatArray, oracle: FloatArray, chance: FloatArray) -> dict[str, FloatArray]:
    gain = oracle - chance
    prr = np.full(len(area), np.nan)
    np.divide(area - chance, gain, out=prr, where=gain > 1e-12)
    return {"prr_area": area, "prr": prr}


def _binary(quality: FloatArray) -> bool:
    return bool(np.isin(quality, (0.0, 1.0)).all())


def _unit(quality: FloatArray) -> FloatArray:
    low, high = quality.min(), quality.max()
    return (quality - low) / (high - low) if high > low else np.full_like(quality, 0.5)
