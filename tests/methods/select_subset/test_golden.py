"""Outputs of the official implementations; how each was made is in the files' `how`."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from methods.select_subset.algorithms import (
    ccs,
    cluster_sampling,
    coincide,
    d2,
    embeddings,
    influence,
    presel,
    xmas,
)
from methods.select_subset.kmeans.kmeans import kmeans
from tests.methods.select_subset import attention, upstream

GOLDEN = Path(__file__).parents[2] / "golden" / "selection"
BASELINES = json.loads((GOLDEN / "baselines.json").read_text())
SAMPLING = json.loads((GOLDEN / "xmas_sampling.json").read_text())["cases"]


def test_xmas_trajectories_stability_and_clusters():
    golden = np.load(GOLDEN / "xmas_kmeans.npz", allow_pickle=False)
    x = xmas.signatures(golden["singular_values"], 5)
    np.testing.assert_allclose(xmas.stability(x), golden["stability"], rtol=1e-6)
    found = kmeans(x, 1000, niter=100)
    assert adjusted_rand_score(found.labels, golden["cluster"]) > 0.99


@pytest.mark.parametrize("k", [4, 8, 16])
def test_kmeans_small(k):
    golden = np.load(GOLDEN / "kmeans_small.npz", allow_pickle=False)
    found = kmeans(golden["x"], k, niter=100)
    assert adjusted_rand_score(found.labels, golden[f"labels_k{k}"]) == 1
    np.testing.assert_allclose(found.centroids, golden[f"centroids_k{k}"], rtol=1e-5)
    assert found.inertia == pytest.approx(float(golden[f"inertia_k{k}"]), rel=1e-5)


@pytest.mark.parametrize("case", SAMPLING, ids=lambda case: case["name"])
def test_xmas_sampling(case):
    ids = list(case["cluster"])
    labels = np.array([case["cluster"][i] for i in ids])
    steadiness = [case["stability"].get(i, np.inf) for i in ids]
    text = np.array([i in set(case["text_only"]) for i in ids])
    text_label = None
    if text.any():
        text_label = int(labels[~text].max()) + 1
        labels[text] = text_label
    found = cluster_sampling.cluster_sample(
        labels,
        steadiness,
        case["percentage"] * len(ids) // 100,
        fill=False,
        random_label=text_label,
        seed=case["python_random_seed"],
    )
    assert [ids[i] for i in found.order] == case["selected_ids"]
    taken = {str(c): int(q) for c, q in enumerate(found.quotas) if q}
    assert taken == case["selected_per_cluster"]


@pytest.mark.parametrize("suffix", ["", "_gqa"])
def test_attention_and_singular_values(suffix):
    golden = np.load(GOLDEN / "attention_svd.npz", allow_pickle=False)
    text = np.zeros((2, 640), dtype=bool)
    image = text.copy()
    text[:, 612:], image[:, 35:611] = True, True
    block = attention.CrossAttention(text, image)
    for query, key in zip(golden["q"], golden["k" + suffix], strict=True):
        block.add_official(query, key)
    np.testing.assert_allclose(block.blocks, golden["cross_sum" + suffix], atol=1e-6)
    exact = attention.top_singular_values(block.blocks, 5)
    np.testing.assert_allclose(exact, golden["svdvals_top5" + suffix], rtol=1e-5)
    # The official estimate is random: its sum lies a few per cent below the exact one.
    official = golden[f"svd_lowrank_q5{suffix}_seed42"]
    ours = attention.lowrank_singular_values(block.blocks, 5, np.random.default_rng(0))
    for estimate in (official, ours):
        assert (estimate <= exact * (1 + 1e-5)).all()
        assert (estimate.sum(1) > 0.94 * exact.sum(1)).all()
        np.testing.assert_allclose(estimate[:, 0], exact[:, 0], rtol=5e-3)


def test_ccs():
    golden = BASELINES["ccs"]
    assert ccs.hard_cut(golden["score"], 50).tolist() == golden["hard_cut_kept"]
    order, labels, quotas = ccs.ccs(golden["score"], 100, np.random.default_rng(0))
    assert np.bincount(labels, minlength=51)[:50].tolist() == golden["strata_counts"]
    assert quotas[:50].tolist() == golden["selected_per_stratum"]
    assert np.bincount(labels[order], minlength=50)[:50].tolist() == quotas[:50].tolist()


def test_coincide():
    golden = BASELINES["coincide"]
    order, quotas, _ = coincide.coincide(
        np.array(golden["embedding"]),
        golden["cluster"],
        golden["transferability"],
        cluster_sampling.budget_of(golden["fraction"], len(golden["cluster"])),
        temperature=golden["temp"],
    )
    assert order.tolist() == golden["selected"]
    assert quotas.tolist() == golden["selected_per_cluster"]


def test_semdedup():
    golden = BASELINES["semdedup"]
    found = embeddings.max_earlier_similarity(np.array(golden["embedding"]))
    np.testing.assert_allclose(found, golden["max_earlier_similarity"], atol=1e-5)
    for eps, removed in golden["removed"].items():
        assert np.flatnonzero(found > 1 - float(eps)).tolist() == removed


def test_d2():
    golden = BASELINES["d2_pruning"]
    near, squared = embeddings.neighbours(golden["embedding"], 5)
    assert near.tolist() == golden["neighbors"]
    graph = d2.graph_scores(golden["score"], near, squared)
    np.testing.assert_allclose(graph, golden["graph_score"], rtol=1e-5)
    picks = d2.greedy_picks(graph, near, squared, len(golden["selected"]), gamma=golden["gamma"])
    assert picks.tolist() == golden["selected"]


def test_token_scores():
    golden = BASELINES["token_scores"]
    found = upstream.token_scores(golden["logits"], golden["labels"])
    for ours, theirs in (
        ("el2n", "el2n"),
        ("aum", "aum_margin"),
        ("loss", "loss"),
        ("perplexity", "perplexity"),
    ):
        np.testing.assert_allclose(found[ours], golden[theirs], rtol=1e-5)


def test_influence():
    golden = BASELINES["influence"]
    train = np.array(golden["train_grad"]).transpose(1, 0, 2)
    target = np.array(golden["val_grad"])  # checkpoints, tasks, items, dimensions
    steps, tasks, items, width = target.shape
    flat = target.transpose(1, 2, 0, 3).reshape(tasks * items, steps, width)
    names = [str(task) for task in range(tasks) for _ in range(items)]
    found_names, found = influence.task_influence(train, flat, names, golden["weights"])
    assert found_names == ["0", "1", "2"]
    np.testing.assert_allclose(found, golden["task_scores"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(influence.less(found), golden["less"], rtol=1e-9)
    assert influence.icons_votes(found, 30).tolist() == golden["icons_votes"]


def test_presel_allocation():
    golden = BASELINES["presel_allocation"]
    assert presel.task_budgets(golden["irs"], golden["budget"]).tolist() == golden["allocation"]
