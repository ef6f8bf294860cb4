"""Splits and counts: golden values, and the laws they obey."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.plan_augmentation.planning import counts
from methods.plan_augmentation.planning.plan import couples
from methods.plan_augmentation.planning.split import (
    adjusted_rand,
    cross_entropy,
    slow_by,
    split,
    two_means,
)
from methods.plan_augmentation.training.early import separating

GOLDEN = Path(__file__).parents[2] / "golden/augmentation"
SPLITS = json.loads((GOLDEN / "slow_split.json").read_text())
PLAN = json.loads((GOLDEN / "tada_plan.json").read_text())


@pytest.mark.parametrize("case", SPLITS["cases"], ids=lambda one: str(one["name"]))
def test_golden_splits(case: dict[str, Any]) -> None:
    outputs, labels = np.array(case["outputs"]), np.array(case["labels"])
    losses = cross_entropy(outputs, labels)
    np.testing.assert_allclose(losses, case["loss"], atol=1e-8)
    found = split(outputs, labels, losses, int(labels.max()) + 1, 0)
    for wanted in case["per_class"]:
        one = found[wanted["class"]]
        assert (len(one.rows), int(one.slow.sum())) == (wanted["rows"], wanted["slow"])
        assert one.unsplit == wanted["unsplit"]
        if not one.unsplit:
            assert one.inertia == pytest.approx(wanted["inertia"], abs=1e-8)
            np.testing.assert_allclose(one.margin, wanted["margin"], atol=1e-8)
            own = losses[one.rows]
            assert own[one.slow].mean() == pytest.approx(wanted["mean_loss_slow"], abs=1e-8)
            assert own[~one.slow].mean() == pytest.approx(wanted["mean_loss_fast"], abs=1e-8)
    for rule, key in (
        ("cluster", "slow"),
        ("top-loss", "same_size_by_top_loss"),
        ("misclassified", "misclassified"),
    ):
        assert slow_by(rule, found, losses, outputs, labels).tolist() == case[key]
    copies = counts.targeted(
        np.array(case["slow"]), labels, losses, len(found), case["factor"], "none", None
    )
    assert int(copies.sum()) == case["new_images"]
    assert len(labels) + int(copies.sum()) == case["set_size"]


def test_golden_plan() -> None:
    outputs, labels = np.array(PLAN["outputs"]), np.array(PLAN["labels"])
    losses = cross_entropy(outputs, labels)
    np.testing.assert_allclose(losses, PLAN["loss"], atol=1e-6)
    found = split(outputs, labels, losses, 3, 0)
    slow = slow_by("cluster", found, losses, outputs, labels)
    assert np.flatnonzero(slow).tolist() == PLAN["slow_indices"]
    assert slow.mean() == PLAN["slow_fraction"]
    for name, wanted in PLAN["expected"].items():
        new = counts.targeted(slow, labels, losses, 3, int(name[2:]), "none", None)
        assert int(new.sum()) == wanted["new_images"]
        assert len(labels) + int(new.sum()) == wanted["train_size"]


def drawn(seed: int, rows: int = 60, classes: int = 3) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    outputs = rng.normal(size=(rows, classes)) + 3 * np.eye(classes)[labels]
    outputs[rng.random(rows) < 0.3] *= -0.5
    return outputs, labels, cross_entropy(outputs, labels)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    outputs, labels, losses = drawn(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    one = slow_by("cluster", split(outputs, labels, losses, 3, 0), losses, outputs, labels)
    mixed = (outputs[order], labels[order], losses[order])
    other = slow_by("cluster", split(*mixed, 3, 0), mixed[2], mixed[0], mixed[1])
    assert one[order].tolist() == other.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(-1e3, 1e3))
def test_a_rotation_or_a_shift_of_all_outputs_moves_nobody(seed: int, shift: float) -> None:
    outputs, _, _ = drawn(seed, 40)
    turn = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(3, 3)))[0]
    first = two_means(outputs, 0)
    second = two_means(outputs @ turn + shift, 0)
    assert first is not None
    assert second is not None
    assert first[0].tolist() == second[0].tolist()
    assert first[1] == pytest.approx(second[1], rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_slow_is_worse_and_a_constant_on_a_row_is_no_loss(seed: int) -> None:
    outputs, labels, losses = drawn(seed)
    for one in split(outputs, labels, losses, 3, 0):
        if not one.unsplit:
            own = losses[one.rows]
            assert own[one.slow].mean() >= own[~one.slow].mean()
    moved = outputs.copy()
    moved[7] += 5
    np.testing.assert_allclose(cross_entropy(moved, labels), losses, atol=1e-12)


def test_two_means_finds_the_optimum_of_small_classes() -> None:
    """Beside every partition of ten rows."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = rng.normal(size=(10, 3))
        best = np.inf
        for code in range(1, 1 << 9):
            other = np.array([False] + [bool(code >> k & 1) for k in range(9)])
            parts = (x[other], x[~other])
            best = min(best, sum(((one - one.mean(axis=0)) ** 2).sum() for one in parts))
        found = two_means(x, 0)
        assert found is not None
        assert found[1] == pytest.approx(best, rel=1e-9)
    assert two_means(np.ones((4, 3)), 0) is None
    assert two_means(np.ones((1, 3)), 0) is None


@settings(max_examples=50, deadline=None)
@given(
    st.integers(2, 6),
    st.sampled_from(["none", "equal"]),
    st.integers(0, 1_000),
    st.one_of(st.none(), st.integers(3, 100)),
)
def test_counts(factor: int, balance: str, seed: int, most: int | None) -> None:
    outputs, labels, losses = drawn(seed)
    slow = slow_by("cluster", split(outputs, labels, losses, 3, 0), losses, outputs, labels)
    found = counts.targeted(slow, labels, losses, 3, factor, balance, most)
    wanted = (factor - 1) * int(slow.sum())
    assert int(found.sum()) == (wanted if most is None else min(wanted, most))
    assert not found[~slow].any()
    if balance == "equal":
        sizes = [int(found[labels == kind].sum()) for kind in set(labels[slow].tolist())]
        assert max(sizes) - min(sizes) <= 1
    elif most is None:
        assert set(found[slow].tolist()) <= {factor - 1}
    rng = np.random.default_rng(seed)
    total = int(found.sum())
    over = counts.spread(total, len(labels), rng)
    assert int(over.sum()) == total
    assert over.max() - over.min() <= 1
    sources = int((found > 0).sum())
    some = counts.random_part(total, sources, len(labels), rng)
    assert (int(some.sum()), int((some > 0).sum())) == (total, sources)


def test_a_larger_factor_only_adds() -> None:
    small, large = np.array([0, 1, 2]), np.array([1, 2, 4])
    assert set(couples(small)) <= set(couples(large))
    assert len(couples(large)) == 7


def test_agreement_of_splits() -> None:
    rng = np.random.default_rng(0)
    one = rng.random(2_000) < 0.3
    assert adjusted_rand(one, one) == 1
    assert adjusted_rand(one, ~one) == 1
    assert abs(adjusted_rand(one, rng.random(2_000) < 0.3)) < 0.05


def test_the_separating_epoch() -> None:
    # Falls of .1, .4, .3, .1: the fourth is less than half of the largest so far.
    assert separating([0.9, 0.5, 0.2, 0.1, 0.1]) == 4
    assert separating([0.2, 0.15, 0.1]) == 2
    assert separating([0.9, 0.8, 0.7]) == 3
