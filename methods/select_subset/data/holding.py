"""Rows that are held out before anything is chosen or trained."""

from __future__ import annotations

import numpy as np

from methods.select_subset.data.copies import Copies
from methods.typing import BoolArray

#: More rows make a loss hardly more exact.
MOST = 1000


def hold_out(
    usable: BoolArray, copies: Copies, share: float, seed: int
) -> tuple[BoolArray, BoolArray]:
    """Draw rows to ask about, and what has to go with them.

    Args:
        usable: (N,) rows to draw from. copies: a row is held out with all that repeat it.
        share: of the rows that repeat none.

    Returns:
        (N,) the rows to ask about, none of which repeats another; (N,) those and their copies.
    """
    firsts = np.flatnonzero(usable & ~copies.rows)
    count = min(MOST, round(share * len(firsts)))
    drawn = np.random.default_rng([seed, 21]).permutation(len(firsts))[:count]
    asked = np.zeros(len(usable), dtype=np.bool_)
    asked[firsts[drawn]] = True
    return asked, asked[copies.of]
