"""Overlap, penalty and projection beside golden values, and the laws they obey."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.align_safety.overlap import directions
from methods.align_safety.overlap.directions import leading
from methods.align_safety.overlap.measures import Factors, Full, Overlap, Sketched, Update, measure
from methods.align_safety.overlap.penalty import overlap_penalty, span
from methods.align_safety.overlap.projection import Side, project_factors, project_full

FOLDER = Path(__file__).parents[2] / "golden/safety"
GOLDEN = json.loads((FOLDER / "overlap.json").read_text())
ARRAYS = np.load(FOLDER / "overlap.npz")
PENALTY = json.loads((FOLDER / "orth_penalty.json").read_text())
PENALTY_ARRAYS = np.load(FOLDER / "orth_penalty.npz")
FACTORS = json.loads((FOLDER / "projection_factors.json").read_text())
FACTOR_ARRAYS = np.load(FOLDER / "projection_factors.npz")
SIDES: dict[str, Side] = {"col": "column", "row": "row", "both": "both"}


def array(name: str) -> torch.Tensor:
    return torch.from_numpy(ARRAYS[name])


def numbers(found: Overlap) -> dict[str, float | None]:
    """By the names of the golden file."""
    flat: dict[str, float | None] = {
        "rel_norm": found.rel_norm,
        "fro_norm": found.fro,
        "spectral_norm": found.spectral,
        "stable_rank": found.stable_rank,
        "entropy_rank": found.entropy_rank,
        "frobenius_cosine": found.frobenius_cosine,
        "col_affinity_k": found.affinity["column"],
        "row_affinity_k": found.affinity["row"],
    }
    for short, side in SIDES.items():
        flat |= {
            f"{short}_energy_k": found.energy[side],
            f"{short}_weighted_k": found.weighted[side],
            f"{short}_weighted_full": found.weighted_full[side],
            f"raw_{short}_penalty_k": found.penalty[side],
            f"null_{short}_energy": found.null[side],
            f"null_{short}_weighted": found.null_weighted[side],
        }
    return flat


def updates(name: str) -> list[Update]:
    found: list[Update] = [Full(array(f"{name}__dW"))]
    if name.startswith("lora"):
        scale = float(ARRAYS[f"{name}__scale"])
        found.append(Factors(array(f"{name}__A"), array(f"{name}__B"), scale))
    return found


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["name"])
def test_all_numbers(case: dict[str, Any]) -> None:
    name, expected = case["name"], dict(case["expect"])
    # Ours count what is above 1e-10 of the largest; the file's is the same number.
    expected.pop("numeric_rank")
    weight = array(f"{name}__W")
    for update in updates(name):
        found = numbers(measure(weight, update, leading(weight, case["k"])))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-9), key


def test_an_update_of_zero_has_no_ratios() -> None:
    weight = array("zero__W")
    found = measure(weight, Full(array("zero__dW")), leading(weight, 8))
    assert (found.fro, found.rel_norm, found.stable_rank) == (0.0, 0.0, None)
    assert set(found.energy.values()) == {None}
    assert set(found.lift.values()) == {None}
    zero = Factors(torch.zeros(2, 32), torch.ones(48, 2), 1.0)
    assert measure(weight, zero, leading(weight, 8)).energy["column"] is None


@pytest.mark.parametrize("case", PENALTY["penalties"], ids=lambda case: case["name"])
def test_penalty(case: dict[str, Any]) -> None:
    module, side, weighted, form = case["name"].split("|")
    total = 0.0
    for name in ("gate_proj", "up_proj", "down_proj") if module == "all" else (module,):
        weight, a, b = (torch.from_numpy(PENALTY_ARRAYS[f"{name}__{k}"]) for k in "WAB")
        normalise = form == "norm"
        spans = span(leading(weight, 32), side, weighted == "weighted", normalise)
        total += float(overlap_penalty(a, b, spans, normalise))
    assert total == pytest.approx(case["float64"], rel=PENALTY["tolerance_vs_float64"])
    assert total == pytest.approx(case["official_fp32"], rel=PENALTY["tolerance_vs_official"])


@pytest.mark.parametrize("case", FACTORS["cases"], ids=lambda case: case["name"])
def test_projected_factors(case: dict[str, Any]) -> None:
    name, scale = case["adapter"], case["scale"]
    found = leading(array(f"{name}__W"), case["k"])
    a, b, kept = project_factors(array(f"{name}__A"), array(f"{name}__B"), found, case["mode"])
    for made, key in ((a, "A"), (b, "B")):
        wanted = FACTOR_ARRAYS[f"{case['name']}__{key}"]
        assert made.numpy() == pytest.approx(wanted, abs=FACTORS["tolerance"])
    assert kept == pytest.approx(case["kept_energy"], abs=FACTORS["tolerance"])
    assert np.linalg.matrix_rank((scale * b @ a).numpy()) == case["rank"]
    after = measure(array(f"{name}__W"), Factors(a, b, scale), found)
    for side, key in (("column", "column"), ("row", "row")):
        wanted = case[f"{key}_energy_before_after"][1]
        assert after.energy[side] == pytest.approx(wanted, abs=FACTORS["tolerance"])
    rescaled = project_factors(
        array(f"{name}__A"), array(f"{name}__B"), found, case["mode"], rescale=True
    )
    norm = float((rescaled[1] @ rescaled[0]).norm())
    assert norm == pytest.approx(float((array(f"{name}__B") @ array(f"{name}__A")).norm()))
    assert norm / float((b @ a).norm()) == pytest.approx(case["rescale_to_original_norm"])


@pytest.mark.parametrize("case", GOLDEN["projection_merges"], ids=lambda case: case["name"])
def test_merges(case: dict[str, Any]) -> None:
    name, mode = case["name"].split("/")
    weight, update = array(f"{name}__W"), array(f"{name}__dW")
    found = leading(weight, 8)
    made = project_full(update, found, mode)
    if f"{name}__merge_{mode}" in ARRAYS:
        assert made.numpy() == pytest.approx(ARRAYS[f"{name}__merge_{mode}"], abs=1e-9)
    after = measure(weight, Full(made), found)
    assert after.fro == pytest.approx(case["fro"], rel=1e-9)
    kept = float(made.norm() ** 2 / update.norm() ** 2)
    assert kept == pytest.approx(case["kept_energy"], rel=1e-9)
    for short, side in SIDES.items():
        assert after.energy[side] == pytest.approx(case[f"{short}_energy_after"], abs=1e-9)


def random_case(seed: int, r: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return normal(20, 12), normal(r, 12), normal(20, r)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 11))
def test_laws(seed: int, k: int) -> None:
    weight, a, b = random_case(seed)
    found = leading(weight, k)
    one = measure(weight, Factors(a, b, 0.5), found)
    for value in one.energy.values():
        assert value is not None
        assert 0 <= value <= 1
    column, row, both = (one.energy[side] or 0.0 for side in ("column", "row", "both"))
    assert both <= min(column, row) + 1e-12
    # Factors and the whole matrix agree.
    other = measure(weight, Full(0.5 * b @ a), found)
    for key, value in numbers(one).items():
        assert numbers(other)[key] == pytest.approx(value, rel=1e-8, abs=1e-10), key
    # Scale changes no ratio.
    larger = measure(weight, Factors(a, b, 7.0), found)
    assert larger.energy == pytest.approx(one.energy)
    assert larger.stable_rank == pytest.approx(one.stable_rank)
    # Nor does another basis of weights and update together.
    left = torch.linalg.qr(random_case(seed + 1)[0] @ random_case(seed + 2)[0].T).Q
    right = torch.linalg.qr(random_case(seed + 3)[0].T @ random_case(seed + 4)[0]).Q
    turned = left @ weight @ right
    moved = measure(turned, Full(left @ (0.5 * b @ a) @ right), leading(turned, k))
    assert moved.energy == pytest.approx(one.energy, abs=1e-8)
    assert moved.weighted_full == pytest.approx(one.weighted_full, abs=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 11), st.sampled_from(["column", "row", "both"]))
def test_laws_of_projection(seed: int, k: int, side: Side) -> None:
    weight, a, b = random_case(seed)
    found = leading(weight, k)
    before = measure(weight, Factors(a, b, 1.0), found)
    once = project_factors(a, b, found, side)
    twice = project_factors(once[0], once[1], found, side)
    assert twice[0].numpy() == pytest.approx(once[0].numpy(), abs=1e-12)
    assert twice[1].numpy() == pytest.approx(once[1].numpy(), abs=1e-12)
    after = measure(weight, Factors(once[0], once[1], 1.0), found)
    assert after.energy[side] == pytest.approx(0, abs=1e-12)
    if side != "both":
        assert once[2] == pytest.approx(1 - (before.energy[side] or 0.0), abs=1e-10)
    whole = project_full(b @ a, found, side)
    assert (once[1] @ once[0]).numpy() == pytest.approx(whole.numpy(), abs=1e-9)


def test_an_update_without_direction_has_lift_one() -> None:
    weight, _, _ = random_case(0)
    found = leading(weight, 4)
    lifts = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        update = torch.randn(20, 12, generator=generator, dtype=torch.float64)
        lifts.append(list(measure(weight, Full(update), found).lift.values()))
    values = np.array(lifts, dtype=np.float64)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(axis=0) - 1) < 3 * error).all()


@pytest.mark.parametrize("shape", [(90, 140), (140, 90)])
def test_large_matrices_give_the_same_numbers(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those above 4 million entries go by Gram matrices; here the limit is lowered."""
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(*shape, generator=generator) / torch.arange(1, 1 + shape[1])
    update = torch.randn(*shape, generator=generator)
    a = torch.randn(4, shape[1], generator=generator)
    b = torch.randn(shape[0], 4, generator=generator)
    small = [measure(weight, u, leading(weight, 9)) for u in (Full(update), Factors(a, b, 2.0))]
    monkeypatch.setattr(directions, "SMALL", 100)
    monkeypatch.setattr("methods.align_safety.overlap.measures.SMALL", 100)
    large = [measure(weight, u, leading(weight, 9)) for u in (Full(update), Factors(a, b, 2.0))]
    for one, other in zip(small, large, strict=True):
        for key, value in numbers(one).items():
            if "affinity" not in key:
                assert numbers(other)[key] == pytest.approx(value, rel=2e-5, abs=1e-7), key
    sketched = measure(weight, Sketched(update, 400), leading(weight, 9, sketch=True))
    for key, value in numbers(small[0]).items():
        if "affinity" not in key and "entropy" not in key:
            loose = 0.15 if "full" in key else 0.02
            assert numbers(sketched)[key] == pytest.approx(value, rel=loose, abs=1e-3), key


def test_weights_of_low_rank_fall_back_to_exact_directions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = random_case(1)[2] @ random_case(1)[1]
    monkeypatch.setattr(directions, "SMALL", 10)
    found = leading(weight.float(), 5)
    assert (found.left.T @ found.left).numpy() == pytest.approx(np.eye(5), abs=1e-10)
    assert (found.right.T @ found.right).numpy() == pytest.approx(np.eye(5), abs=1e-10)
