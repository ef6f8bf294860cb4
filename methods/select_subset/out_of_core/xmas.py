"""XMAS beyond memory: trajectories stay in their parquet file, DuckDB samples from another.

The picks are those of `clustered.xmas`. Centroids are fitted on the same sample of rows, every row
is assigned in the same blocks, and ties go by row number.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from methods.errors import JobError
from methods.select_subset.algorithms.cluster_sampling import water_fill
from methods.select_subset.algorithms.xmas import stability
from methods.select_subset.data.table_files import arrow
from methods.select_subset.kmeans.faiss_rng import SEED
from methods.select_subset.kmeans.kmeans import assign, block_rows, fit, sample_places
from methods.select_subset.schema.methods import XmasParams
from methods.typing import Float32Array, FloatArray, IntArray

#: From so many rows on, features are left in their file.
MIN_ROWS = 20_000_000
#: Rows in memory at a time, about.
CHUNK_ROWS = 1 << 20
_MEMORY = "1GB"


@dataclass(frozen=True)
class Trajectories:
    """The columns of numbers of a parquet file, one a checkpoint, read as float32.

    Attributes:
        open: opens the file anew.
    """

    open: Callable[[], BinaryIO]
    columns: list[str]
    rows: int

    def chunks(self, size: int) -> Iterator[Float32Array]:
        """All rows in chunks of exactly this size; the last may be shorter.

        Raises:
            JobError: `input_invalid` for values that are not finite.
        """
        waiting: list[Float32Array] = []
        held = start = 0
        with self.open() as reader:
            file = arrow()[1].ParquetFile(reader)
            for batch in file.iter_batches(batch_size=size, columns=self.columns):
                part = np.stack(
                    [np.asarray(column.to_numpy(zero_copy_only=False)) for column in batch], axis=1
                ).astype(np.float32)
                self._check(part, start)
                start += len(part)
                waiting.append(part)
                held += len(part)
                while held >= size:
                    whole = np.concatenate(waiting)
                    yield whole[:size]
                    waiting, held = [whole[size:]], held - size
        if held:
            yield np.concatenate(waiting)

    def _check(self, part: Float32Array, start: int) -> None:
        bad = np.flatnonzero(~np.isfinite(part).all(axis=1))
        if len(bad):
            raise JobError(
                "input_invalid",
                f"Feature trajectory: row {start + int(bad[0])} is not a finite number.",
                details={"rows": (start + bad[:100]).tolist()},
            )


@dataclass(frozen=True)
class Assigned:
    """A parquet file with `row`, `cluster`, `key` and `stability` of every row, in row order.

    Attributes:
        sizes: (C,) rows of each cluster.
    """

    path: Path
    sizes: IntArray
    inertia: float
    iterations: int
    variance: list[float]


def cluster_file(
    given: Trajectories,
    params: XmasParams,
    k: int,
    seed: int,
    target: Path,
    tell: Callable[[int], None],
) -> Assigned:
    """Cluster trajectories that are read three times and never held.

    Args:
        k: clusters. seed: of the job.
        target: parquet file to write. tell: called with the rows read, of three times all.
    """
    count, kmeans_seed = given.rows, SEED + seed
    places = sample_places(count, k, params.kmeans_max_points_per_centroid, kmeans_seed)
    fitted, shift, variance = _sampled(given, places, tell)
    centroids, iterations = fit(
        fitted, k, params.kmeans_niter, kmeans_seed, shift, init=params.kmeans_init
    )
    pyarrow, parquet = arrow()
    draws = np.random.default_rng([seed, 1, 0])
    # Whole blocks, so that rounding is that of one pass over all rows.
    size = max(1, CHUNK_ROWS // block_rows(k)) * block_rows(k)
    sizes, inertia, start = np.zeros(k, dtype=np.int64), 0.0, 0
    kinds = (("row", "int64"), ("cluster", "int32"), ("key", "float64"), ("stability", "float32"))
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in kinds])
    with parquet.ParquetWriter(target, schema) as writer:
        for rows in given.chunks(size):
            labels, distances = assign(rows, centroids)
            steady = stability(rows)
            key: FloatArray | Float32Array = steady
            if params.within != "stable":
                key = draws.random(len(rows)) if params.within == "random" else distances
            numbers = np.arange(start, start + len(rows))
            columns = (numbers, labels.astype(np.int32), key.astype(np.float64), steady)
            writer.write_table(pyarrow.table(list(columns), schema=schema))
            sizes += np.bincount(labels, minlength=k)
            inertia += float(distances.sum(dtype=np.float64))
            start += len(rows)
            tell(2 * count + start)
    return Assigned(target, sizes, inertia, iterations, variance)


def _sampled(
    given: Trajectories, places: IntArray | None, tell: Callable[[int], None]
) -> tuple[Float32Array, FloatArray, list[float]]:
    """Rows to fit on in the order of `places`; of all rows the mean, and each column's variance."""
    count, width = given.rows, len(given.columns)
    fitted = np.empty((count if places is None else len(places), width), dtype=np.float32)
    order = np.arange(count) if places is None else np.argsort(places)
    ranked = order if places is None else places[order]
    total, start = np.zeros(width), 0
    for rows in given.chunks(CHUNK_ROWS):
        stop = start + len(rows)
        inside = slice(*np.searchsorted(ranked, (start, stop)).tolist())
        fitted[order[inside]] = rows[ranked[inside] - start]
        # Row after row, as one sum over all of them goes.
        total = np.add.reduce(np.concatenate([total[None], rows.astype(np.float64)]), axis=0)
        start = stop
        tell(start)
    mean = total / count
    squares, start = np.zeros(width), 0
    for rows in given.chunks(CHUNK_ROWS):
        squares += ((rows - mean) ** 2).sum(axis=0)
        start += len(rows)
        tell(count + start)
    return fitted, mean, [round(float(v), 6) for v in squares / count]


@dataclass(frozen=True)
class FileSample:
    """What `sampling.ClusterSample` says, of a file."""

    order: IntArray
    clusters: IntArray
    quotas: IntArray
    dropped: int
    filled: int


def sample_file(
    given: Assigned, budget: int, min_cluster: int = 3, fill: bool = True
) -> FileSample:
    """The picks of `sampling.cluster_sample` from an assigned file, by DuckDB.

    Returns:
        Also the cluster of each pick.
    """
    sizes = given.sizes
    kept = np.flatnonzero(sizes >= min_cluster)
    quotas = np.zeros_like(sizes)
    quotas[kept] = water_fill(sizes[kept], budget)
    turn = np.zeros_like(sizes)
    turn[kept[np.argsort(sizes[kept], kind="stable")]] = np.arange(len(kept))
    with database() as duck:
        duck.execute("CREATE TABLE quotas (cluster INT, quota BIGINT, turn BIGINT, small BOOLEAN)")
        table = arrow()[0].table(
            {
                "cluster": np.arange(len(sizes), dtype=np.int32),
                "quota": quotas,
                "turn": turn,
                "small": sizes < min_cluster,
            }
        )
        duck.register("given", table)
        duck.execute("INSERT INTO quotas SELECT * FROM given")
        duck.read_parquet(str(given.path)).create_view("rows")
        picked = duck.execute(_PICKED).fetchnumpy()
        rows, clusters = picked["row"], picked["cluster"]
        short = min(budget, int(sizes.sum())) - len(rows) if fill else 0
        if short > 0:
            extra = duck.execute(_FILL, [short]).fetchnumpy()
            rows = np.concatenate([rows, extra["row"]])
            clusters = np.concatenate([clusters, extra["cluster"]])
    dropped = int(((sizes > 0) & (sizes < min_cluster)).sum())
    return FileSample(
        np.asarray(rows, dtype=np.int64),
        np.asarray(clusters, dtype=np.int64),
        quotas,
        dropped,
        max(short, 0),
    )


_PICKED = """
SELECT row, cluster FROM (
    SELECT row, cluster, quota, turn,
           row_number() OVER (PARTITION BY cluster ORDER BY key, row) AS place
    FROM rows JOIN quotas USING (cluster) WHERE quota > 0
) WHERE place <= quota ORDER BY turn, place
"""
#: Rows of dropped clusters first, then the others beyond their quota, each the most stable first.
_FILL = """
SELECT row, cluster FROM (
    SELECT row, cluster, quota, small, stability,
           row_number() OVER (PARTITION BY cluster ORDER BY key, row) AS place
    FROM rows JOIN quotas USING (cluster)
) WHERE place > quota ORDER BY small DESC, stability, row LIMIT $1
"""


def database() -> Any:
    """DuckDB in memory, which spills to disk beyond its share.

    Raises:
        JobError: `too_large` where the package is missing.
    """
    try:
        duckdb = importlib.import_module("duckdb")
    except ImportError as error:
        raise JobError(
            "too_large",
            "Features of this size need the package duckdb, which this worker does not have.",
        ) from error
    connection = duckdb.connect(":memory:", config={"memory_limit": _MEMORY})
    connection.execute("SET enable_progress_bar = false")
    return connection
