"""Matrices taken together: by kind, by layer, or all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from methods.align_safety.overlap.spec import BySide, GroupOverlap, MatrixOverlap
from methods.results import counted


def lift_of(rows: Sequence[MatrixOverlap]) -> BySide:
    """Energy over null of matrices together, each weighted by the squared norm of its update; null
    where nothing changed."""

    def over(side: str) -> float | None:
        found = [(row.fro**2, getattr(row.energy, side), getattr(row.null, side)) for row in rows]
        known = [one for one in found if one[1] is not None]
        null = sum(weight * expected for weight, _, expected in known)
        return sum(weight * energy for weight, energy, _ in known) / null if null else None

    return BySide.model_validate({side: over(side) for side in BySide.model_fields})


def grouped(rows: Sequence[MatrixOverlap], by_layer: bool) -> list[GroupOverlap]:
    """Rows together by kind, or by kind and layer."""
    groups: dict[tuple[str, int | None], list[MatrixOverlap]] = {}
    for row in rows:
        groups.setdefault((row.kind, row.layer if by_layer else None), []).append(row)
    return [
        GroupOverlap(
            kind=kind,
            layer=layer,
            n=len(own),
            lift=lift_of(own),
            lift_mean=BySide.model_validate(
                {
                    side: _mean([getattr(row.lift, side) for row in own])
                    for side in BySide.model_fields
                }
            ),
            stable_rank=_mean([row.stable_rank for row in own]),
            rel_norm=_mean([row.rel_norm for row in own]),
        )
        for (kind, layer), own in sorted(groups.items(), key=_layer_then_kind)
    ]


def about_rounding(rows: Sequence[MatrixOverlap]) -> list[str]:
    """A warning of updates that the files' type hides."""
    limited = sum("rounding_limited" in row.flags for row in rows)
    if not limited:
        return []
    return [
        f"In {counted(limited, 'matrix', 'matrices')} of {len(rows):,} the update is so small "
        "that the files' type hides most of it: ranks and overlaps there are those of "
        "rounding. Compare weights in float32, or the adapter."
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _layer_then_kind(group: tuple[tuple[str, int | None], object]) -> tuple[int, str]:
    (kind, layer), _ = group
    return layer or 0, kind
