"""What kept texts tell of the real ones, beside real ones that nothing was aimed at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from methods.synthesize_text.outcome.comparing import auc_interval, paired_auc_interval
from methods.synthesize_text.result import Half, Leakage, NearestPair
from methods.synthesize_text.texts.overlap import Overlap, RealTexts, likeness, words
from methods.typing import IntArray

_SHOWN = 10
#: Texts of a half that are compared at most, drawn by the seed.
_MOST, _MOST_WORDS = 5_000, 300_000


def report(
    texts: Sequence[str],
    rows: Sequence[int],
    used: Sequence[str],
    used_rows: Sequence[int],
    held: Sequence[str],
    rng: np.random.Generator,
) -> tuple[Leakage, list[Overlap], list[Overlap]]:
    """Compare texts with real ones that were used and with as many that were held out.

    Args:
        texts: kept ones. rows: their rows in the file of texts.
        used_rows: rows of the used real texts in the input.

    Returns:
        The report, and for each text what it shares with either half.
    """
    longest = max(1.0, *(float(np.mean([len(words(t)) for t in half])) for half in (used, held)))
    size = max(1, min(len(used), len(held), _MOST, int(_MOST_WORDS / longest)))
    # A longer list has longer runs in common: both halves get one length.
    mine: IntArray = np.sort(rng.choice(len(used), size, replace=False))
    others: IntArray = np.sort(rng.choice(len(held), size, replace=False))
    halves = [[used[k] for k in mine], [held[k] for k in others]]
    of_used, of_held = (
        [index.compare(text) for text in texts] for index in (RealTexts(half) for half in halves)
    )
    runs = [
        np.array([one.longest_run for one in side], dtype=np.float64) for side in (of_used, of_held)
    ]
    near_used, near_held = (likeness(half, texts) for half in halves)
    order = sorted(range(len(texts)), key=lambda k: (-of_used[k].longest_run, k))
    nearest = [
        NearestPair(
            row=rows[k],
            real_row=used_rows[int(mine[place])],
            longest_run=of_used[k].longest_run,
            exact=of_used[k].exact,
        )
        for k in order[:_SHOWN]
        if (place := of_used[k].nearest) is not None
    ]
    found = Leakage(
        used=_half(of_used, size),
        control=_half(of_held, size),
        copying_auc=paired_auc_interval(runs[0], runs[1]),
        membership_auc=auc_interval(near_used, near_held),
        nearest=nearest,
    )
    return found, of_used, of_held


def _half(found: list[Overlap], size: int) -> Half:
    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None

    return Half(
        texts=size,
        exact=sum(one.exact for one in found),
        longest_run_mean=float(np.mean([one.longest_run for one in found])),
        longest_run_max=max(one.longest_run for one in found),
        trigram_share=mean([one.trigram_share for one in found]),
        ngram8_share=mean([one.ngram8_share for one in found]),
    )
