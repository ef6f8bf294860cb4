"""Penalties on the gap of image and text tokens at the language model's input, and their weight.

The paper (arXiv:2505.24208) adds one to the loss of projector pre-training and publishes neither
its norm nor its pairing; this is the family of what it may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor

from methods.errors import JobError
from methods.pretrain_projector.settings import PenaltyKind


def gap_penalty(kind: PenaltyKind, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    """The penalty of each sample.

    Args:
        kind: with v_i the image tokens, t_j the text tokens, V and T their means:
            `pairwise_l2` mean ||v_i - t_j||; `pairwise_sq` mean ||v_i - t_j||^2, which is
            `centroid_sq` and the variances of both; `centroid_l2` ||V - T||; `centroid_sq` its
            square; `centroid_cos` 1 - cos(V, T); `chamfer` mean over i of min over j of
            ||v_i - t_j||.
        image: (batch, image tokens, d), outputs of the projector; gradients go to it alone.
        text: (batch, text tokens, d), embeddings of the text.
        mask: (batch, text tokens), true for a real token, one a sample at least.

    Returns:
        (batch,), 0 or more.
    """
    return _KINDS[kind](image, text.detach(), mask)


def alpha_of(losses: Sequence[float], penalties: Sequence[float]) -> float:
    """What brings the penalty to the size of the loss: ratio of their means over the warm-up.

    It is computed once and then stays as it is.

    Raises:
        JobError: `numerical_failure` where the penalty is 0 throughout or not finite.
    """
    loss, penalty = (sum(values) / len(values) for values in (losses, penalties))
    if not penalty > 0 or penalty == float("inf"):
        raise JobError(
            "numerical_failure",
            "The penalty is 0 or not finite over the warm-up, so that its weight is undefined: "
            "give alpha as a number, or lower the learning rate.",
        )
    return loss / penalty


def _mean(text: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(text.dtype).unsqueeze(-1)
    return (text * weights).sum(dim=1) / weights.sum(dim=1)


def _away(image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    return image.mean(dim=1) - _mean(text, mask)


def _distances(image: Tensor, text: Tensor) -> Tensor:
    # Products in place of differences would lose the digits of near tokens.
    return torch.cdist(image, text, compute_mode="donot_use_mm_for_euclid_dist")


def _pairwise_l2(image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    own = _distances(image, text).masked_fill(~mask.unsqueeze(1), 0.0)
    return own.sum(dim=(1, 2)) / (mask.sum(dim=1) * image.shape[1])


def _pairwise_sq(image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    middle = _mean(text, mask)
    spread_v = ((image - image.mean(dim=1, keepdim=True)) ** 2).sum(dim=-1).mean(dim=1)
    spread_t = _mean(((text - middle.unsqueeze(1)) ** 2).sum(dim=-1, keepdim=True), mask)
    return _centroid_sq(image, text, mask) + spread_v + spread_t.squeeze(-1)


def _centroid_l2(image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    return torch.linalg.vector_norm(_away(image, text, mask), dim=-1)


def _centroid_sq(image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    return (_away(image, text, mask) ** 2).sum(dim=-1)


def _centroid_cos(image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    return 1 - torch.cosine_similarity(image.mean(dim=1), _mean(text, mask), dim=-1)


def _chamfer(image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    own = _distances(image, text).masked_fill(~mask.unsqueeze(1), float("inf"))
    return own.min(dim=2).values.mean(dim=1)


_KINDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "pairwise_l2": _pairwise_l2,
    "pairwise_sq": _pairwise_sq,
    "centroid_l2": _centroid_l2,
    "centroid_sq": _centroid_sq,
    "centroid_cos": _centroid_cos,
    "chamfer": _chamfer,
}
assert tuple(_KINDS) == get_args(PenaltyKind)
