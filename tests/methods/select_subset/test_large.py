"""XMAS beyond memory gives what it gives within: the same picks, weights and random rows."""

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.errors import JobError
from methods.select_subset.algorithms.cluster_sampling import cluster_sample
from methods.select_subset.out_of_core import xmas
from methods.select_subset.out_of_core.xmas import Assigned, Trajectories, sample_file
from tests.methods.select_subset.selecting import array, select, text, trajectories

pytestmark = pytest.mark.skipif(
    find_spec("duckdb") is None, reason="the extra duckdb is not there: make ray"
)
arrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_duckdb_picks_what_memory_picks(tmp_path_factory, data):
    labels = np.array(data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=60)))
    # Few values, so that there are ties.
    values = st.lists(
        st.sampled_from([0.0, 0.5, 1.0, 2.5]), min_size=len(labels), max_size=len(labels)
    )
    key, steady = np.array(data.draw(values)), np.array(data.draw(values))
    budget = data.draw(st.integers(0, len(labels) + 3))
    least, fill = data.draw(st.integers(1, 5)), data.draw(st.booleans())
    path = tmp_path_factory.mktemp("t") / "assigned.parquet"
    columns = {"row": np.arange(len(labels)), "cluster": labels, "key": key, "stability": steady}
    parquet.write_table(arrow.table(columns), path)
    sizes = np.bincount(labels)
    found = sample_file(Assigned(path, sizes, 0.0, 0, []), budget, least, fill)
    expected = cluster_sample(labels, key, budget, min_cluster=least, fill=fill, fill_key=steady)
    assert found.order.tolist() == expected.order.tolist()
    assert found.quotas.tolist() == expected.quotas.tolist()
    assert (found.dropped, found.filled) == (expected.dropped, expected.filled)
    assert found.clusters.tolist() == labels[found.order].tolist()


def write(path, rows, ids=False, values=None):
    values = trajectories(rows).astype(np.float32) if values is None else values
    columns = {f"t{n}": column for n, column in enumerate(values.T)}
    if ids:
        columns["id"] = [f"ü{n}" for n in range(rows)]
    parquet.write_table(arrow.table(columns), path, row_group_size=777)


def test_every_row_is_read_once_in_chunks_of_one_size(tmp_path):
    write(tmp_path / "x", 5000)
    path = tmp_path / "x"
    given_file = Trajectories(lambda: path.open("rb"), [f"t{n}" for n in range(7)], 5000)
    parts = list(given_file.chunks(1100))
    assert [len(part) for part in parts] == [1100, 1100, 1100, 1100, 600]
    np.testing.assert_array_equal(np.concatenate(parts), trajectories(5000).astype(np.float32))


@pytest.mark.parametrize("within", ["stable", "random", "centroid"])
@pytest.mark.parametrize("most", [256, 20])
def test_a_file_is_clustered_and_sampled_as_an_array_is(tmp_path, monkeypatch, within, most):
    monkeypatch.setattr(xmas, "CHUNK_ROWS", 3000)
    write(tmp_path / "x.parquet", 9000, ids=True)
    spec = {
        "features": {"kind": "trajectory", "input": "x.parquet"},
        "budget": {"fraction": 0.3},
        "params": {"clusters": 40, "within": within, "kmeans_max_points_per_centroid": most},
        "seed": 3,
        "output": {"what": ["indices", "ids", "weights", "scores"], "tables": "parquet"},
    }
    small = select(tmp_path, **spec)
    expected = {k: array(tmp_path, small, k) for k in ("indices", "random_indices", "weights")}
    ids = text(tmp_path, small, "ids")
    scores = parquet.read_table(tmp_path / small.artifacts["scores"].id)
    monkeypatch.setattr(xmas, "MIN_ROWS", 9000)
    found = select(tmp_path, **spec)
    assert any("beyond memory" in warning for warning in found.warnings)
    for name, values in expected.items():
        np.testing.assert_array_equal(array(tmp_path, found, name), values, err_msg=name)
    assert text(tmp_path, found, "ids") == ids
    table = parquet.read_table(tmp_path / found.artifacts["scores"].id)
    for name in ("row", "cluster", "place", "id"):
        assert table[name].to_pylist() == scores[name].to_pylist(), name
    np.testing.assert_allclose(table["score"].to_numpy(), scores["score"].to_numpy())
    same = ("requested", "selected", "filled", "candidates", "shortfall", "indices", "provenance")
    assert [getattr(found, n) for n in same] == [getattr(small, n) for n in same]
    assert found.clusters.model_copy(update={"inertia": 0}) == small.clusters.model_copy(
        update={"inertia": 0}
    )
    assert found.clusters.inertia == pytest.approx(small.clusters.inertia)
    np.testing.assert_allclose(
        found.details["checkpoint_variance"], small.details["checkpoint_variance"], rtol=1e-5
    )


def test_values_that_are_not_finite_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(xmas, "MIN_ROWS", 1)
    values = trajectories(3000).astype(np.float32)
    values[2345, 3] = np.nan
    write(tmp_path / "x.parquet", 3000, values=values)
    with pytest.raises(JobError, match="row 2345 is not a finite number") as caught:
        select(
            tmp_path,
            features={"kind": "trajectory", "input": "x.parquet"},
            budget={"count": 30},
        )
    assert caught.value.details == {"rows": [2345]}
