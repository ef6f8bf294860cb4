"""Rows of some clusters as people read them: what was taken, and what was left."""

from __future__ import annotations

from typing import Any

import numpy as np

from methods.context import RunContext
from methods.results import Column, Sample, SampleGroup, SamplesBlock, SampleText
from methods.select_subset.algorithms.budgets import Outcome
from methods.select_subset.data.chosen_rows import read_again
from methods.select_subset.data.dataset import Rows
from methods.select_subset.duplicates.fingerprints import texts_of
from methods.select_subset.schema.inputs import TrainingRows

_CLUSTERS, _ROWS, _LENGTH = 8, 4, 240


def block(
    dataset: TrainingRows, rows: Rows, outcome: Outcome, ctx: RunContext
) -> SamplesBlock | None:
    """Up to 4 chosen and 4 other rows of up to 8 clusters, from the largest to the smallest; None
    where no row has a text."""
    lines = _lines(outcome)
    texts = _texts(
        dataset, rows, [n for _, _, *parts in lines for part in parts for n in part], ctx
    )
    samples = []
    for name, values, taken, left in lines:
        groups = [
            SampleGroup(label=label, texts=[SampleText(text=texts[n]) for n in part if texts[n]])
            for label, part in (("chosen", taken), ("left", left))
        ]
        if any(group.texts for group in groups):
            shown = [group for group in groups if group.texts]
            samples.append(Sample(id=name, values=values, groups=shown))
    if not samples:
        return None
    return SamplesBlock(
        title="Rows chosen and left",
        help="Some clusters from the largest to the smallest, with the first rows that were taken "
        "and the first that were left; the id of a row stands before its text.",
        columns=[
            Column(key="rows", label="Rows", format="integer"),
            Column(key="taken", label="Taken", format="integer"),
        ],
        sort="-rows",
        total=len(samples),
        samples=samples,
    )


def _lines(outcome: Outcome) -> list[tuple[str, dict[str, Any], list[int], list[int]]]:
    """Name, figures, chosen rows and other rows of some clusters, or of all rows as one."""
    clusters = outcome.some_clusters(_CLUSTERS)
    if len(clusters) < 2:
        left = outcome.candidates[~outcome.chosen[outcome.candidates]]
        figures = {"rows": len(outcome.candidates), "taken": len(outcome.rows)}
        return [("all rows", figures, outcome.rows[:_ROWS].tolist(), left[:_ROWS].tolist())]
    found = []
    for cluster in clusters:
        taken, left = outcome.members(cluster)
        figures = {"rows": int(outcome.sizes[cluster]), "taken": len(taken)}
        rows = (taken[:_ROWS].tolist(), left[:_ROWS].tolist())
        found.append((f"cluster {cluster}", figures, *rows))
    return found


def _texts(
    dataset: TrainingRows, rows: Rows, numbers: list[int], ctx: RunContext
) -> dict[int, str]:
    left_out = {dataset.id_field or "id", dataset.image_field or "image", "images"}
    unique = np.array(sorted(set(numbers)), dtype=np.int64)
    found = {}
    for number, row in zip(unique.tolist(), read_again(rows.file, unique, ctx), strict=True):
        text = " / ".join(texts_of(row, left_out)) if isinstance(row, dict) else ""
        if len(text) > _LENGTH:
            text = f"{text[: _LENGTH - 1]}…"
        found[number] = f"{rows.ids[number]}: {text}" if text else ""
    return found
