"""The job as a whole, and the pitfalls of selection from features."""

import json
from pathlib import Path

import numpy as np
import pytest

from methods.errors import JobCancelled, JobError
from methods.local import LocalContext
from methods.select_subset.algorithms.cluster_sampling import cluster_sample
from methods.select_subset.job import run
from methods.select_subset.spec import JOB, Spec
from tests.methods.select_subset.attention import (
    CrossAttention,
    official_attention,
    top_singular_values,
)
from tests.methods.select_subset.selecting import array, conversation, select, text, trajectories


def feature(values, kind="trajectory", **more):
    return {"kind": kind, "values": np.asarray(values, dtype=float).tolist(), **more}


def test_the_example_runs(tmp_path):
    result = select(tmp_path, **JOB.example)
    assert result.selected == result.requested == 4
    assert len(array(tmp_path, result, "random_indices")) == 4
    assert {f.title for f in result.figures} >= {"Cluster sizes and quotas", "Map of the selection"}


def test_artifacts_agree_with_each_other(tmp_path):
    x = trajectories(200)
    ids = [f"ü{i}#/" for i in range(200)]
    result = select(
        tmp_path,
        dataset={"rows": [{"id": i, "n": n} for n, i in enumerate(ids)]},
        features=feature(x[::-1], ids=ids[::-1]),
        budget={"fraction": 0.25},
        output={"tables": "parquet"},
    )
    chosen = array(tmp_path, result, "indices")
    assert chosen.dtype == np.int64
    assert chosen.tolist() == result.indices
    names = [json.loads(line) for line in text(tmp_path, result, "ids").splitlines()]
    assert names == [ids[row] for row in chosen]
    rows = [json.loads(line)["n"] for line in text(tmp_path, result, "rows").splitlines()]
    assert rows == result.indices
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / result.artifacts["scores"].id).to_pydict()
    assert table["row"] == list(range(200))
    assert table["id"] == ids
    assert [row for row in np.argsort(table["place"]) if table["place"][row] >= 0] == rows
    np.testing.assert_allclose(table["score"], np.abs(np.diff(x, axis=1)).sum(1), rtol=1e-5)
    weights = array(tmp_path, result, "weights")
    clusters = np.array(table["cluster"])
    for cluster in set(clusters[chosen].tolist()):
        stood_for = weights[clusters[chosen] == cluster].sum()
        assert stood_for == pytest.approx((clusters == cluster).sum())


def test_the_same_job_gives_the_same_result(tmp_path):
    spec = {
        "features": feature(trajectories(300)),
        "budget": {"fraction": 0.2},
        "params": {"within": "random"},
        "seed": 7,
    }
    first, second = (select(tmp_path / str(i), **spec) for i in range(2))
    assert first == second
    other = select(tmp_path / "x", **spec | {"seed": 8})
    assert other.indices != first.indices
    assert other.input_digest == first.input_digest


# Pitfall 1: padding must not change a signature.
def test_padding_changes_nothing():
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, 2, 30, 8))
    text_at, image_at = np.zeros((2, 1, 30), dtype=bool)
    image_at[0, 3:15], text_at[0, 15:30] = True, True

    def values(pad, valid):
        def padded(x):
            return np.concatenate([x, rng.normal(size=(pad, 8))])[None]

        def wide(mask):
            return np.concatenate([mask, np.zeros((1, pad), dtype=bool)], axis=1)

        real = wide(np.ones((1, 30), dtype=bool))
        # Text rows of an unmasked run go to the end of the batch, pads included.
        rows = wide(text_at) if valid else wide(text_at) | ~real
        block = CrossAttention(rows, wide(image_at), real if valid else None)
        for layer in range(2):
            block.add_official(padded(q[layer]), padded(k[layer]))
        return top_singular_values(block.blocks)

    np.testing.assert_allclose(values(60, True), values(0, True), rtol=1e-4)
    assert np.abs(values(60, False).sum() / values(0, False).sum() - 1) > 0.05


# Pitfall 2: several images are a union of columns; no image gives an empty block.
def test_images_anywhere_and_the_model_attention():
    rng = np.random.default_rng(1)
    attention = rng.dirichlet(np.ones(12), size=(3, 4, 12))
    text_at, image_at = np.zeros((2, 3, 12), dtype=bool)
    image_at[0, [1, 2, 6, 7]], text_at[0, 8:] = True, True
    image_at[1, 2:4], text_at[1, 5:] = True, True
    text_at[2, :] = True
    block = CrossAttention(text_at, image_at)
    block.add_model(attention)
    block.add_model(attention)
    expected = 2 * attention[0].mean(0)[8:][:, [1, 2, 6, 7]]
    np.testing.assert_allclose(block.blocks[0, :4, :4], expected)
    values = top_singular_values(block.blocks)
    np.testing.assert_allclose(
        values[0, :4], np.linalg.svd(expected, compute_uv=False), rtol=1e-8, atol=1e-9
    )
    assert (values[2] == 0).all()
    assert values.shape == (3, 5)


# Pitfall 3: a narrower key is widened by repeating columns.
def test_grouped_queries():
    rng = np.random.default_rng(2)
    q, k = rng.normal(size=(10, 8)), rng.normal(size=(10, 2))
    wide = official_attention(q, np.repeat(k, 4, axis=1))
    np.testing.assert_allclose(official_attention(q, k), wide)
    np.testing.assert_allclose(wide.sum(1), 1)


# Pitfall 4: checkpoints with other rows are named; another order is matched by id.
def test_checkpoint_files_are_matched_by_id(tmp_path):
    x = trajectories(60, steps=3)
    ids = [f"r{i}" for i in range(60)]
    shuffled = np.random.default_rng(0).permutation(60)
    for t, order in enumerate((np.arange(60), shuffled, np.arange(60)[::-1])):
        file = {ids[i]: [x[i, t], 0.5] for i in order}
        (tmp_path / f"checkpoint-{t}.json").write_text(json.dumps(file))
    inputs = [f"checkpoint-{t}.json" for t in range(3)]
    spec = {"features": {"kind": "singular_values", "inputs": inputs}, "budget": {"count": 12}}
    stacked = np.stack([x, np.full_like(x, 0.5)], axis=2)
    whole = select(tmp_path, **spec | {"features": feature(stacked, "singular_values", ids=ids)})
    assert select(tmp_path, **spec).indices == whole.indices
    other = {("zz" if i == "r7" else i): v for i, v in file.items()}
    (tmp_path / inputs[2]).write_text(json.dumps(other))
    with pytest.raises(JobError, match=r"checkpoint 2 has other rows.*r7.*zz") as caught:
        select(tmp_path, **spec)
    assert caught.value.details == {"missing": ["r7"], "extra": ["zz"]}


# Pitfall 5: values that are not finite stop the job or leave their rows out.
def test_values_that_are_not_finite(tmp_path):
    x = trajectories(50)
    x[[3, 17], 2] = np.nan, np.inf
    np.save(tmp_path / "x.npy", x)
    spec = {"features": {"kind": "trajectory", "input": "x.npy"}, "budget": {"fraction": 1.0}}
    with pytest.raises(JobError, match="2 of 50 rows are not valid; the first is row 3"):
        select(tmp_path, **spec)
    result = select(tmp_path, **spec, on_bad_rows="skip")
    assert sorted(result.indices) == [i for i in range(50) if i not in (3, 17)]
    assert result.validation.problems == {"features/trajectory is not a finite number": 2}


# Pitfall 6: fewer rows than clusters, constant trajectories, one checkpoint.
def test_small_and_flat_data(tmp_path):
    few = select(
        tmp_path,
        features=feature(trajectories(5)),
        budget={"count": 3},
        params={"clusters": 1000},
    )
    assert few.selected == 3
    assert few.clusters.k == 5
    assert few.clusters.dropped == 5
    flat = select(tmp_path, features=feature(np.ones((40, 7))), budget={"count": 10})
    assert flat.indices == list(range(10))
    assert any("All trajectories are equal" in warning for warning in flat.warnings)
    single = select(tmp_path, features=feature(trajectories(40)[:, :1]), budget={"count": 10})
    assert any("one checkpoint" in warning for warning in single.warnings)
    assert single.selected == 10


# Pitfall 7: budgets at the edges.
def test_budgets(tmp_path):
    spec = {"features": feature(trajectories(100)), "params": {"clusters": 30}}
    assert sorted(select(tmp_path, **spec, budget={"fraction": 1.0}).indices) == list(range(100))
    below = select(tmp_path, **spec, budget={"count": 4})
    assert below.selected == 4
    assert any("below the number of clusters" in warning for warning in below.warnings)
    with pytest.raises(JobError, match="rounds down to 0"):
        select(tmp_path, **spec, budget={"fraction": 0.001})
    above = select(tmp_path, **spec, budget={"count": 250})
    assert (above.selected, above.shortfall) == (100, 150)
    assert any("250 rows were asked for" in warning for warning in above.warnings)
    open_end = {**spec, "params": {"clusters": 60, "fill_shortfall": False}}
    short = select(tmp_path, **open_end, budget={"fraction": 1.0})
    assert short.shortfall == 100 - short.selected > 0
    filled = select(tmp_path, **spec | {"params": {"clusters": 60}}, budget={"fraction": 1.0})
    assert filled.filled == short.shortfall
    assert filled.indices[: short.selected] == short.indices
    floor = select(tmp_path, **spec, budget={"fraction": 0.29})
    assert floor.requested == 29


def mixed(text_rows):
    rows = [conversation(f"i{n}") for n in range(60)]
    rows += [conversation(f"t{n}", image=False) for n in range(text_rows)]
    x = trajectories(60)
    return {"dataset": {"rows": rows}, "features": feature(x, ids=[f"i{n}" for n in range(60)])}


# Pitfall 8: a text-only group smaller than its quota is taken whole and the rest rolls on.
def test_text_only_rows(tmp_path):
    small = select(
        tmp_path, **mixed(4), budget={"count": 50}, params={"clusters": 3, "min_cluster": 1}
    )
    assert small.selected == 50
    assert {60, 61, 62, 63} <= set(small.indices)
    large = {**mixed(40), "budget": {"fraction": 0.2}, "params": {"clusters": 3}}
    drawn = select(tmp_path, **large)
    assert drawn.requested == 20
    assert sum(row >= 60 for row in drawn.indices) == 5
    kept = select(tmp_path, **large, keep_text_only="all")
    assert kept.selected == 20
    assert all(row >= 60 for row in kept.indices)
    assert any("text-only rows alone" in warning for warning in kept.warnings)
    share = select(tmp_path, **large, keep_text_only="proportional")
    assert sum(row >= 60 for row in share.indices) == 8
    assert (share.validation.text_only_rows, share.validation.text_only_selected) == (40, 8)
    assert not any("Text-only" in warning for warning in share.warnings)
    crowded = select(tmp_path, **large | {"budget": {"count": 24}, "params": {"clusters": 11}})
    assert any("of the choice: the rule" in warning for warning in crowded.warnings)
    dropped = select(tmp_path, **large, keep_text_only="drop")
    assert (dropped.requested, dropped.candidates) == (12, 60)
    assert all(row < 60 for row in dropped.indices)
    score = {"features": feature(np.arange(60.0), "score", ids=[f"i{n}" for n in range(60)])}
    other = select(tmp_path, **large | score | {"method": "loss", "params": {}})
    assert sum(row >= 60 for row in other.indices) == 8
    assert other.selected == 20


# Pitfall 9: any id maps back to its row.
def test_features_that_do_not_match_the_rows(tmp_path):
    spec = mixed(0) | {"budget": {"count": 10}}
    spec["features"]["ids"][5] = "nobody"
    with pytest.raises(JobError, match=r"1 of 60 rows.*row 5 \(features\): has no features"):
        select(tmp_path, **spec)
    result = select(tmp_path, **spec, on_bad_rows="skip")
    assert 5 not in result.indices
    assert any("an id that no row has" in warning for warning in result.warnings)
    with pytest.raises(JobError, match="has 3 rows and no ids, the data has 60"):
        select(tmp_path, **spec | {"features": feature(np.ones((3, 2)))})


# Pitfall 10: early checkpoints decide unless values are scaled; their variance is reported.
def test_scale_of_checkpoints(tmp_path):
    rng = np.random.default_rng(0)
    late = rng.integers(2, size=200)
    x = np.stack([150 + 10 * rng.normal(size=200), 10 + 0.1 * late], axis=1)
    spec = {"features": feature(x), "budget": {"count": 20}}
    raw, scaled = (
        select(
            tmp_path / scale,
            **spec,
            params={"scale": scale, "clusters": 2, "kmeans_init": "kmeans++"},
        )
        for scale in ("none", "zscore")
    )
    assert raw.details["checkpoint_variance"][0] > 1000 * raw.details["checkpoint_variance"][1]
    labels = {
        scale: array(tmp_path / scale, result, "scores")["cluster"]
        for scale, result in (("none", raw), ("zscore", scaled))
    }
    agreement = {s: max((c == late).mean(), (c != late).mean()) for s, c in labels.items()}
    assert agreement["zscore"] > 0.95 > 0.7 > agreement["none"]


def test_vectors_of_singular_values_tell_more_than_sums(tmp_path):
    values = np.zeros((60, 2, 2))
    values[:30], values[30:] = [3.0, 3.0], [5.0, 1.0]
    for name, clusters in (("sum", 1), ("vector", 2)):
        result = select(
            tmp_path,
            features=feature(values, "singular_values"),
            budget={"count": 10},
            params={"feature": name, "clusters": 2},
        )
        assert result.clusters.k == clusters


def test_within_a_cluster(tmp_path):
    x = np.full((30, 3), 10.0)
    x[:, 1] += np.arange(30)[::-1] * 0.1
    spec = {"features": feature(x), "budget": {"count": 3}}
    params = {"clusters": 1}
    assert select(tmp_path, **spec, params=params).indices == [29, 28, 27]
    centroid = select(tmp_path, **spec, params=params | {"within": "centroid"})
    assert set(centroid.indices) <= {13, 14, 15, 16}
    drawn = select(tmp_path, **spec, params=params | {"within": "random"})
    assert len(set(drawn.indices)) == 3


@pytest.mark.parametrize(
    ("balance", "expected"), [("equal", {"a": 10, "b": 20, "c": 30}), ("proportional", None)]
)
@pytest.mark.parametrize("method", ["stratified", "loss", "xmas"])
def test_groups(tmp_path, balance, expected, method):
    names = ["a"] * 10 + ["b"] * 20 + ["c"] * 170
    spec = {
        "dataset": {"rows": [{"id": i, "g": name} for i, name in enumerate(names)]},
        "groups": {"field": "g", "balance": balance},
        "budget": {"count": 60},
        "method": method,
    }
    if method == "loss":
        spec["features"] = feature(np.arange(200.0), "score")
    if method == "xmas":
        spec |= {"features": feature(trajectories(200)), "params": {"clusters": 4}}
    result = select(tmp_path, **spec)
    counts = {name: group.selected for name, group in result.per_group.items()}
    assert counts == (expected or {"a": 3, "b": 6, "c": 51})
    assert result.selected == 60
    only = select(tmp_path, **spec | {"groups": {"field": "g", "balance": balance}, "seed": 1})
    assert only.selected == 60


def test_orders_of_output(tmp_path):
    spec = {"features": feature(trajectories(80)), "budget": {"count": 20}}
    method, given, shuffled = (
        select(tmp_path, **spec, output={"order": order}).indices
        for order in ("method", "input", "shuffled")
    )
    assert given == sorted(method) == sorted(shuffled)
    assert shuffled not in (method, given)
    few = select(tmp_path, **spec, output={"what": ["indices"]})
    assert set(few.artifacts) == {"indices", "random_indices"}


def test_presel_and_influence_end_to_end(tmp_path):
    rng = np.random.default_rng(0)
    rows = [{"id": i, "task": "ab"[i % 2]} for i in range(120)]
    spec = {
        "dataset": {"rows": rows},
        "features": feature(rng.normal(size=(120, 6)), "embedding"),
        "groups": {"field": "task"},
        "method": "presel",
        "budget": {"count": 40},
    }
    result = select(tmp_path, **spec, params={"irs": {"a": 0.5, "b": 0.9}, "cluster_share": 0.1})
    assert result.details["task_budgets"]["a"] > result.details["task_budgets"]["b"]
    assert result.per_group["a"].selected == result.details["task_budgets"]["a"]
    with pytest.raises(JobError, match="no relevance for the tasks b"):
        select(tmp_path, **spec, params={"irs": {"a": 0.5}})
    gradients = rng.normal(size=(50, 3, 8))
    target = np.concatenate([gradients[[4, 9]], rng.normal(size=(1, 3, 8))])
    less = select(
        tmp_path,
        features=[
            feature(gradients, "gradient"),
            feature(target, "target_gradient", tasks=["x", "y", "z"]),
        ],
        method="less",
        budget={"count": 2},
    )
    assert sorted(less.indices) == [4, 9]
    assert less.details["tasks"] == ["x", "y", "z"]
    with pytest.raises(JobError, match="must agree"):
        select(
            tmp_path,
            features=[
                feature(gradients, "gradient"),
                feature(target[:, :2], "target_gradient"),
            ],
            method="icons",
            budget={"count": 2},
        )


@pytest.mark.parametrize("score", [0.0, 7.0, 1e300, -1e-300])
def test_equal_scores_can_be_drawn(tmp_path, score):
    values = np.full(50, score)
    values[::2] = np.nextafter(score, np.inf)
    result = select(tmp_path, features=feature(values, "score"), method="loss", budget={"count": 5})
    assert sum(bar["n"] for bar in result.figures[0].vega_lite["data"]["values"]) == 50


def test_figures_stay_small(tmp_path):
    x = np.random.default_rng(0).normal(size=(5000, 12))
    np.savez(tmp_path / "f.npz", x=x)
    result = select(
        tmp_path,
        features={"kind": "embedding", "input": "f.npz"},
        method="prototypes",
        budget={"fraction": 0.1},
    )
    points = result.figures[-1].vega_lite["data"]["values"]
    assert len(points) == 2000
    assert len(result.model_dump_json()) < 400_000


def test_the_example_file_runs(tmp_path):
    examples = Path(__file__).parents[3] / "examples"
    spec = Spec.model_validate_json((examples / "select-subset.json").read_bytes())
    result = run(spec, LocalContext(tmp_path, spec, inputs=examples))
    assert result.selected == 60
    names = [json.loads(line) for line in text(tmp_path, result, "ids").splitlines()]
    known = json.loads((examples / "select-subset-trajectories.json").read_text())
    assert names == [list(known)[row] for row in result.indices]


def test_progress_is_reported_and_a_job_can_be_stopped(tmp_path):
    spec = Spec.model_validate(
        {
            "dataset": {"rows": [conversation(n) for n in range(50)]},
            "features": feature(trajectories(50)),
            "budget": {"count": 5},
        }
    )
    phases = []
    run(spec, LocalContext(tmp_path, spec, lambda phase, *_: phases.append(phase)))
    assert {"checking rows", "choosing", "drawing"} <= set(phases)

    class Stopped(LocalContext):
        def check(self):
            raise JobCancelled

    with pytest.raises(JobCancelled):
        run(spec, Stopped(tmp_path, spec))


def test_a_whole_official_run(tmp_path):
    golden = Path(__file__).parents[2] / "golden" / "selection" / "xmas_kmeans.npz"
    official = np.load(golden, allow_pickle=False)
    (tmp_path / "f.npz").write_bytes(golden.read_bytes())
    result = select(
        tmp_path,
        features={"kind": "singular_values", "input": "f.npz", "array": "singular_values"},
        budget={"fraction": 0.2},
        params={"clusters": 1000, "fill_shortfall": False},
    )
    sizes = np.bincount(official["cluster"])
    expected = cluster_sample(official["cluster"], official["stability"], 600, fill=False)
    assert result.clusters.dropped == int(((sizes > 0) & (sizes < 3)).sum())
    assert result.indices == expected.order.tolist()
