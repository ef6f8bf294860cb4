"""The files of a select-subset result."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from methods.context import RunContext
from methods.results import ArtifactRef
from methods.select_subset.algorithms.budgets import Outcome
from methods.select_subset.data.dataset import Rows
from methods.select_subset.data.table_files import arrow
from methods.select_subset.result import BadRow
from methods.select_subset.spec import Spec
from methods.typing import IntArray

LINES = "application/x-ndjson"
NPY = "application/x-npy"


def write(
    spec: Spec, outcome: Outcome, ids: list[str] | None, rows: Rows | None, ctx: RunContext
) -> dict[str, ArtifactRef]:
    """Write and store what the spec asks for.

    Args:
        ids: of all rows; None: the row numbers. rows: the data set, None without one.
    """
    wanted = set(spec.output.what)
    found: dict[str, ArtifactRef] = {}

    def save(key: str, name: str, kind: str, source: Path | bytes) -> None:
        found[key] = ctx.save_artifact(name, source, kind)

    if "indices" in wanted:
        save("indices", "indices.npy", NPY, as_npy(outcome.rows))
        save("random_indices", "random_indices.npy", NPY, as_npy(outcome.random_rows))
    if "weights" in wanted:
        save("weights", "weights.npy", NPY, as_npy(outcome.weights))
    if "ids" in wanted:
        names = (str(row) if ids is None else ids[row] for row in outcome.rows.tolist())
        text = "".join(json.dumps(name, ensure_ascii=False) + "\n" for name in names)
        save("ids", "ids.jsonl", LINES, text.encode())
    if "scores" in wanted:
        _scores(spec, outcome, ids, ctx, save)
    if "rows" in wanted and rows is not None:
        path = ctx.workdir / f"selected.{rows.file.suffix}"
        rows.file.copy(outcome.rows, path)
        save("rows", path.name, rows.file.media_type, path)
    return found


def write_bad_rows(bad: list[BadRow], ctx: RunContext) -> ArtifactRef:
    """Store the list of all bad rows."""
    text = "".join(row.model_dump_json() + "\n" for row in bad)
    return ctx.save_artifact("bad_rows.jsonl", text.encode(), LINES)


def as_npy(values: npt.NDArray[Any]) -> bytes:
    """An array as an npy file."""
    buffer = BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _scores(
    spec: Spec,
    outcome: Outcome,
    ids: list[str] | None,
    ctx: RunContext,
    save: Callable[[str, str, str, Path | bytes], None],
) -> None:
    """One line for every candidate: row, score, cluster, place among the chosen or -1."""
    rows = np.sort(outcome.candidates)
    place = np.full(len(outcome.score), -1, dtype=np.int64)
    place[outcome.rows] = np.arange(len(outcome.rows))
    columns: dict[str, IntArray | npt.NDArray[Any]] = {
        "row": rows,
        "score": outcome.score[rows],
        "cluster": outcome.strata[rows],
        "place": place[rows],
    }
    if spec.output.tables == "parquet":
        pyarrow, parquet = arrow()
        table = pyarrow.table(columns)
        if ids is not None:
            table = table.append_column("id", [[ids[row] for row in rows.tolist()]])
        path = ctx.workdir / "scores.parquet"
        parquet.write_table(table, path)
        save("scores", path.name, "application/vnd.apache.parquet", path)
    else:
        path = ctx.workdir / "scores.npz"
        np.savez(path, allow_pickle=False, **columns)
        save("scores", path.name, "application/x-npz", path)
