"""One training of a classifier, counted in steps, so that sets of any size get as many."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.errors import JobError
from methods.finetuning.schedule import full_batches
from methods.plan_augmentation.settings import ClassifierRecipe, WeakAugmentation
from methods.rank_distilled_dataset.data.augment import Augment
from methods.rank_distilled_dataset.networks.optimisers import make_optimiser
from methods.seeds import derived_seed

#: Largest shift, as a share of the image.
_SHIFT = {"crop": 0.125, "flip": 0.5}


@dataclass(frozen=True)
class Epochs:
    """Calls back after whole passes over the data.

    Attributes:
        size: steps of a pass.
    """

    size: int
    after: Callable[[int], bool]


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: ClassifierRecipe,
    steps: int,
    seed: int,
    check: Callable[[], None],
    epochs: Epochs | None = None,
) -> None:
    """Train in place.

    Args:
        images: (N, C, H, W), normalised, as the network sees them.
        seed: of the order and the augmentation.
        epochs: its `after` is told the number of passes that are done, and ends the training by
            returning false.

    Raises:
        JobError: `numerical_failure` where the loss is not finite.
    """
    optimiser = make_optimiser(
        "sgd", network.parameters(), recipe.lr, recipe.weight_decay, recipe.momentum
    )
    draws = torch.Generator().manual_seed(derived_seed(seed, "augment"))
    rng = np.random.default_rng(derived_seed(seed, "order"))
    orders = (rng.permutation(len(images)) for _ in itertools.count())
    network.train()
    for step, rows in zip(range(steps), full_batches(orders, recipe.batch_size), strict=False):
        check()
        for group in optimiser.param_groups:
            group["lr"] = recipe.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        chosen = torch.from_numpy(rows).to(images.device)
        batch = weakly(images[chosen], recipe.augment, draws)
        loss = functional.cross_entropy(network(batch), labels[chosen])
        if not torch.isfinite(loss):
            raise JobError("numerical_failure", f"The loss is not finite at step {step}; lower lr.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if epochs is not None and (step + 1) % epochs.size == 0:
            going = epochs.after((step + 1) // epochs.size)
            network.train()
            if not going:
                break
    network.eval()


def weakly(batch: Tensor, kind: WeakAugmentation, draws: torch.Generator) -> Tensor:
    """Weak augmentation of a batch: whole-pixel shifts, and flips from left to right."""
    if kind == "none":
        return batch
    own = Augment("dsa", _SHIFT)
    batch = own.apply("crop", batch, draws)
    return own.apply("flip", batch, draws) if kind == "shift-flip" else batch
