"""Penalties of the gap: golden values and gradients, and the laws they obey."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from methods.errors import JobError
from methods.pretrain_projector.penalty import alpha_of, gap_penalty
from methods.pretrain_projector.settings import PenaltyKind

GOLDEN = Path(__file__).parents[2] / "golden/safety"
EXPECTED = json.loads((GOLDEN / "gap_regulariser.json").read_text())
KINDS: tuple[PenaltyKind, ...] = get_args(PenaltyKind)
NAMES: dict[str, PenaltyKind] = {"chamfer_l2": "chamfer"}


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    with np.load(GOLDEN / "gap_regulariser.npz") as arrays:
        image, text, mask = (torch.from_numpy(arrays[name]) for name in ("V", "T", "text_mask"))
    return image.requires_grad_(True), text, mask


@pytest.mark.parametrize("one", EXPECTED["regularisers"], ids=lambda one: str(one["name"]))
def test_golden_values_and_gradients(one: dict[str, object]) -> None:
    image, text, mask = tensors()
    name = str(one["name"])
    found = gap_penalty(NAMES.get(name, name), image, text, mask)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.detach(), np.array(one["per_sample"]), rtol=1e-12)
    assert float(found.mean().detach()) == pytest.approx(one["batch_mean"], rel=1e-12)
    found.mean().backward()
    with np.load(GOLDEN / "gap_regulariser.npz") as arrays:
        assert image.grad is not None
        np.testing.assert_allclose(image.grad, arrays[f"grad_{name}"], atol=1e-12)


def test_golden_weight() -> None:
    given = EXPECTED["weighting"]
    alpha = alpha_of(given["lm_warmup"], given["r_warmup"])
    assert alpha == pytest.approx(given["alpha_ratio_of_means"], rel=1e-12)
    one = given["example"]
    total = one["lm"] + one["lam"] * alpha * one["r"]
    assert total == pytest.approx(one["total_with_ratio_of_means"], rel=1e-12)


@pytest.mark.parametrize("penalties", [[0.0, 0.0], [float("inf"), 1.0], [float("nan"), 1.0]])
def test_a_penalty_without_a_size_has_no_weight(penalties: list[float]) -> None:
    with pytest.raises(JobError, match="its weight is undefined"):
        alpha_of([1.0, 1.0], penalties)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_differences(kind: PenaltyKind) -> None:
    image, text, mask = tensors()
    assert torch.autograd.gradcheck(lambda v: gap_penalty(kind, v, text, mask), image)


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_token_changes_nothing_and_text_learns_nothing(kind: PenaltyKind) -> None:
    image, text, mask = tensors()
    text = text.clone().requires_grad_(True)
    whole = gap_penalty(kind, image, text, mask)
    padded = text.detach().clone()
    padded[~mask] = 1e3
    assert torch.equal(gap_penalty(kind, image, padded, mask), whole)
    longer = torch.cat([padded, torch.full_like(padded[:, :2], -7.0)], dim=1)
    more = torch.cat([mask, torch.zeros_like(mask[:, :2])], dim=1)
    torch.testing.assert_close(gap_penalty(kind, image, longer, more), whole)
    whole.sum().backward()
    assert text.grad is None
    assert torch.isfinite(image.grad).all()  # type: ignore[arg-type]


def test_the_pairwise_square_is_the_centres_and_both_variances() -> None:
    """So it shrinks image tokens too: its gradient is that of the centres and of the variance."""
    image, text, mask = tensors()
    direct = torch.stack(
        [torch.cdist(v, t[m]).pow(2).mean() for v, t, m in zip(image, text, mask, strict=True)]
    )
    square = gap_penalty("pairwise_sq", image, text, mask)
    torch.testing.assert_close(square, direct)
    variance = ((image - image.mean(dim=1, keepdim=True)) ** 2).sum(dim=-1).mean(dim=1)
    parts = gap_penalty("centroid_sq", image, text, mask) + variance
    ours, theirs = (torch.autograd.grad(one.sum(), image)[0] for one in (square, parts))
    torch.testing.assert_close(ours, theirs)


def test_tokens_that_lie_on_text_tokens_have_finite_gradients() -> None:
    _, text, mask = tensors()
    mask = torch.ones_like(mask)
    image = text[:, :5].clone().requires_grad_(True)
    for kind in ("pairwise_l2", "pairwise_sq", "chamfer"):
        gap_penalty(kind, image, text, mask).sum().backward()
        assert torch.isfinite(image.grad).all()  # type: ignore[arg-type]
    assert torch.all(gap_penalty("chamfer", image, text, mask) == 0)
