"""Rows of a job that repeat others: found, left out, counted and written."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from methods.context import RunContext
from methods.results import ArtifactRef, counted
from methods.select_subset.algorithms.budgets import Outcome
from methods.select_subset.data.artifacts import LINES
from methods.select_subset.data.copies import Copies
from methods.select_subset.data.dataset import Rows
from methods.select_subset.data.features import Features
from methods.select_subset.duplicates.pairs import near_vectors
from methods.select_subset.result import DuplicateRow, DuplicatesFound
from methods.select_subset.spec import Spec
from methods.typing import BoolArray, IntArray

_EXAMPLES = 100


def find(
    spec: Spec,
    rows: Rows | None,
    features: Features,
    usable: BoolArray,
    check: Callable[[], None],
) -> Copies | None:
    """The copies by texts and images, which were found while the rows were read, and those by
    embeddings that the request brought along; None where neither was compared.

    Args:
        usable: (N,) rows that can be chosen so far.
    """
    if spec.duplicates.action == "keep":
        return None
    copies = None if rows is None else rows.copies
    least = spec.duplicates.near_embeddings
    given = any(one.kind == "embedding" for one in spec.features or []) or spec.embed is not None
    if not given or least is None:
        return copies
    compared = usable & features.present
    if copies is None:
        copies = Copies.none(len(usable), [])
    copies.looked_for.append(f"embeddings whose cosine is {least:g} or more")
    places = np.flatnonzero(compared & ~copies.rows)
    if len(places) > 1:
        a, b, cosine = near_vectors(features.values["embedding"][places], least, spec.seed, check)
        copies.add_near((places[a], places[b], cosine), "embedding")
    return copies


def report(
    copies: Copies, outcome: Outcome, ids: list[str] | None, dropped: BoolArray
) -> DuplicatesFound:
    """Counts, and the first copies.

    Args:
        dropped: (N,) copies that were left out.
    """
    exact = copies.how == 0
    sizes = np.bincount(copies.of, minlength=len(copies.of))
    return DuplicatesFound(
        looked_for=copies.looked_for,
        exact=int(exact.sum()),
        near=int((copies.rows & ~exact).sum()),
        groups=int((sizes > 1).sum()),
        largest_group=int(sizes.max(initial=0)),
        dropped=int(dropped.sum()),
        chosen=_repeats(copies, outcome.rows),
        chosen_at_random=_repeats(copies, outcome.random_rows),
        examples=[
            _copy(copies, row, ids) for row in np.flatnonzero(copies.rows)[:_EXAMPLES].tolist()
        ],
    )


def _repeats(copies: Copies, rows: IntArray) -> int:
    return len(rows) - len(np.unique(copies.of[rows]))


def _copy(copies: Copies, row: int, ids: list[str] | None) -> DuplicateRow:
    of = int(copies.of[row])
    return DuplicateRow(
        row=row,
        id=str(row) if ids is None else ids[row],
        of_row=of,
        of_id=str(of) if ids is None else ids[of],
        how=copies.name(row),
        similarity=round(float(copies.similarity[row]), 4),
    )


#: Chosen copies above this share of the choice are warned of.
_SHARE = 0.05


def warnings(found: DuplicatesFound, spec: Spec, chosen: int, count: int) -> list[str]:
    """What a reader of the choice has to know of its copies."""
    words = []
    if found.dropped:
        words.append(
            f"{counted(found.dropped, 'row')} repeat others and were left out; they are in the "
            "file duplicates."
        )
    if chosen and found.chosen > _SHARE * chosen:
        words.append(
            f"{found.chosen:,} of the {chosen:,} chosen rows repeat other chosen rows "
            f"({found.chosen_at_random:,} of as many at random): duplicates: drop leaves copies "
            "out."
        )
    near = found.near if found.looked_for[-1].startswith("embeddings") else 0
    if near > count / 2:
        words.append(
            f"{near:,} of {count:,} rows are nearly copies, many of them by their embeddings, "
            "which may hardly tell rows apart: raise duplicates.near_embeddings, or set it to null."
        )
    return words


def write(copies: Copies, ids: list[str] | None, ctx: RunContext) -> ArtifactRef:
    """Store the list of all copies."""
    found = (_copy(copies, row, ids) for row in np.flatnonzero(copies.rows).tolist())
    text = "".join(json.dumps(one.model_dump(), ensure_ascii=False) + "\n" for one in found)
    return ctx.save_artifact("duplicates.jsonl", text.encode(), LINES)
