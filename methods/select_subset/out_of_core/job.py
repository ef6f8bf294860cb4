"""A select-subset job whose trajectories stay in their file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from methods.context import RunContext
from methods.results import ArtifactRef, Provenance
from methods.select_subset import blocks
from methods.select_subset.algorithms.budgets import requested_rows
from methods.select_subset.algorithms.dispatch import random_rows
from methods.select_subset.algorithms.xmas import default_clusters
from methods.select_subset.data.artifacts import LINES, NPY, as_npy
from methods.select_subset.data.feature_files import parquet_columns
from methods.select_subset.data.table_files import arrow
from methods.select_subset.figures import cluster_sizes
from methods.select_subset.out_of_core import xmas
from methods.select_subset.out_of_core.xmas import Assigned, FileSample, Trajectories
from methods.select_subset.result import Clusters, Result, Validation
from methods.select_subset.schema.methods import XmasParams
from methods.select_subset.spec import JOB, Spec
from methods.typing import IntArray

_INLINE = 10_000
_QUANTILES = (0, 0.25, 0.5, 0.75, 1)
_PARQUET = "application/vnd.apache.parquet"


def beyond_memory(spec: Spec, ctx: RunContext) -> Trajectories | None:
    """The trajectories of a job that is better done from its file, else None.

    That is XMAS on one parquet file of at least `large.MIN_ROWS` rows whose order is that of the
    rows, with settings that need no second look at them, where duckdb is installed.
    """
    features = spec.features or []
    plain = isinstance(spec.params, XmasParams) and spec.params.scale == "none"
    own = spec.dataset is None and spec.row_order == "input" and spec.on_bad_rows == "error"
    if not (plain and own and len(features) == 1 and find_spec("duckdb")):
        return None
    feature = features[0]
    if feature.kind != "trajectory" or feature.input is None or feature.array is not None:
        return None
    ref = feature.input
    with ctx.open_input(ref) as reader:
        if feature.format not in {"auto", "parquet"} or reader.read(4) != b"PAR1":
            return None
        reader.seek(0)
        file = arrow()[1].ParquetFile(reader)
        rows = int(file.metadata.num_rows)
        if rows < xmas.MIN_ROWS:
            return None
        columns, _, _ = parquet_columns(file.schema_arrow, feature, "Feature trajectory")
    return Trajectories(lambda: ctx.open_input(ref), columns, rows)


def run_large(spec: Spec, given: Trajectories, ctx: RunContext) -> Result:
    """The result of `job.run`, up to rounding and figures of single rows.

    Raises:
        JobError: `input_invalid` for values that are not finite. Ids are not looked at.
    """
    params = spec.params
    assert isinstance(params, XmasParams), "asked for by the caller"
    wanted = requested_rows(spec, given.rows)
    budget = min(wanted, given.rows)
    k = params.clusters or default_clusters(given.rows, budget)
    assigned = xmas.cluster_file(
        given,
        params,
        min(k, given.rows),
        spec.seed,
        ctx.workdir / "assigned.parquet",
        lambda done: ctx.progress("clustering", done, 3 * given.rows, "rows"),
    )
    ctx.progress("sampling", 0, 1, "steps")
    sample = xmas.sample_file(assigned, budget, params.min_cluster, params.fill_shortfall)
    order = _ordered(spec, sample.order)
    artifacts = _Files(spec, given, assigned, sample, order, ctx).write()
    return _result(spec, given, assigned, sample, order, artifacts, wanted, ctx)


def _ordered(spec: Spec, picks: IntArray) -> IntArray:
    """Places in the picks, in output order."""
    if spec.output.order == "input":
        return np.argsort(picks)
    if spec.output.order == "shuffled":
        return np.random.default_rng([spec.seed, 4]).permutation(len(picks))
    return np.arange(len(picks))


class _Files:
    def __init__(
        self,
        spec: Spec,
        given: Trajectories,
        assigned: Assigned,
        sample: FileSample,
        order: IntArray,
        ctx: RunContext,
    ) -> None:
        self._spec, self._given, self._assigned, self._ctx = spec, given, assigned, ctx
        self._picks, self._clusters = sample.order[order], sample.clusters[order]
        assert spec.features is not None, "asked for by the caller"
        with given.open() as reader:
            schema = arrow()[1].ParquetFile(reader).schema_arrow
        _, self._id, _ = parquet_columns(schema, spec.features[0], "Feature trajectory")
        self._found: dict[str, ArtifactRef] = {}

    def write(self) -> dict[str, ArtifactRef]:
        wanted, rows = set(self._spec.output.what), self._given.rows
        if "indices" in wanted:
            drawn = random_rows(rows, len(self._picks), self._spec.seed)
            self._save("indices", "indices.npy", NPY, as_npy(self._picks))
            self._save("random_indices", "random_indices.npy", NPY, as_npy(drawn))
        if "weights" in wanted:
            taken = np.bincount(self._clusters, minlength=len(self._assigned.sizes))
            weights = self._assigned.sizes[self._clusters] / taken[self._clusters]
            self._save("weights", "weights.npy", NPY, as_npy(weights))
        if "ids" in wanted:
            self._save("ids", "ids.jsonl", LINES, self._ids())
        if "scores" in wanted:
            self._save("scores", "scores.parquet", _PARQUET, self._scores())
        return self._found

    def _save(self, key: str, name: str, kind: str, source: Path | bytes) -> None:
        self._found[key] = self._ctx.save_artifact(name, source, kind)

    def _names(self, size: int) -> Iterator[list[str]]:
        """Ids of the rows, so many at a time."""
        if self._id is None:
            for start in range(0, self._given.rows, size):
                yield [str(n) for n in range(start, min(start + size, self._given.rows))]
            return
        with self._given.open() as reader:
            file = arrow()[1].ParquetFile(reader)
            for batch in file.iter_batches(batch_size=size, columns=[self._id]):
                yield [str(name) for name in batch.column(0).to_pylist()]

    def _ids(self) -> Path:
        ranked = np.argsort(self._picks)
        names: list[str] = []
        start = 0
        for part in self._names(xmas.CHUNK_ROWS // 8):
            low, high = np.searchsorted(self._picks[ranked], (start, start + len(part))).tolist()
            names += [part[row - start] for row in self._picks[ranked[low:high]].tolist()]
            start += len(part)
        path = self._ctx.workdir / "ids.jsonl"
        places = np.argsort(ranked)
        with path.open("w", encoding="utf-8") as writer:
            for place in places.tolist():
                writer.write(json.dumps(names[place], ensure_ascii=False) + "\n")
        return path

    def _scores(self) -> Path:
        """The table of `writing`, always parquet; a chunk at a time."""
        pyarrow, parquet = arrow()
        path = self._ctx.workdir / "scores.parquet"
        ranked = np.argsort(self._picks)
        names = iter(self._joined_names())
        writer = None
        file = parquet.ParquetFile(self._assigned.path)
        for batch in file.iter_batches(batch_size=xmas.CHUNK_ROWS // 8):
            rows = batch.column("row").to_numpy()
            place = np.full(len(rows), -1, dtype=np.int64)
            low, high = np.searchsorted(self._picks[ranked], (rows[0], rows[-1] + 1)).tolist()
            place[self._picks[ranked[low:high]] - rows[0]] = ranked[low:high]
            columns: dict[str, Any] = {
                "row": rows,
                "score": batch.column("stability").to_numpy().astype(np.float64),
                "cluster": batch.column("cluster").to_numpy().astype(np.int64),
                "place": place,
            }
            if self._id is not None:
                columns["id"] = [next(names) for _ in range(len(rows))]
            table = pyarrow.table(columns)
            if writer is None:
                writer = parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            self._ctx.progress("writing scores", int(rows[-1]), self._given.rows, "rows")
        assert writer is not None, "there are rows"
        writer.close()
        return path

    def _joined_names(self) -> Iterator[str]:
        for part in self._names(xmas.CHUNK_ROWS // 8):
            yield from part


def _result(
    spec: Spec,
    given: Trajectories,
    assigned: Assigned,
    sample: FileSample,
    order: IntArray,
    artifacts: dict[str, ArtifactRef],
    wanted: int,
    ctx: RunContext,
) -> Result:
    picks = sample.order[order]
    filled = assigned.sizes > 0
    sizes, quotas = assigned.sizes[filled], sample.quotas[filled]
    warnings = [
        f"{given.rows} rows were clustered beyond memory: scores are parquet, and there are no "
        "figures of single rows."
    ]
    if len(picks) < min(wanted, given.rows):
        warnings.append(f"{wanted - len(picks)} rows are missing: set fill_shortfall.")
    result = Result(
        requested=wanted,
        selected=len(picks),
        shortfall=wanted - len(picks),
        filled=sample.filled,
        candidates=given.rows,
        indices=picks.tolist() if len(picks) <= _INLINE else None,
        artifacts=artifacts,
        clusters=Clusters(
            k=int(filled.sum()),
            dropped=sample.dropped,
            size_quantiles=np.quantile(sizes, _QUANTILES).tolist(),
            quota_quantiles=np.quantile(quotas, _QUANTILES).tolist(),
            inertia=assigned.inertia,
            iterations=assigned.iterations,
        ),
        per_group=None,
        validation=Validation(
            rows=given.rows, bad_rows=0, text_only_rows=0, problems={}, examples=[]
        ),
        details={"checkpoint_variance": assigned.variance},
        warnings=warnings,
        provenance=Provenance.of(JOB, spec.seed),
        input_digest=_digest(given, ctx),
    )
    drawn = [cluster_sizes(sizes, quotas)] if len(sizes) > 1 else []
    return blocks.present(result, spec.method, drawn)


def _digest(given: Trajectories, ctx: RunContext) -> str:
    """Of the bytes of the file: a second form of the features would be as large."""
    digest = sha256(" ".join(given.columns).encode())
    with given.open() as reader:
        while chunk := reader.read(1 << 24):
            ctx.check()
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
