"""Runs `plan-augmentation-early`: a network after few epochs, and what it says of every row."""

from __future__ import annotations

import math
from importlib.metadata import version

import numpy as np
import torch

from methods.arrays.npz import savez
from methods.context import RunContext
from methods.plan_augmentation.child_jobs import EarlyMade, EarlyPart
from methods.plan_augmentation.planning.counts import steps_of
from methods.plan_augmentation.planning.split import cross_entropy
from methods.plan_augmentation.result import EarlyEpoch
from methods.plan_augmentation.training.classifier import Epochs, train
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.training.session import logits, one_thread
from methods.seeds import derived_seed
from methods.typing import FloatArray

#: `auto` looks at this share of a whole training.
_SHARE = 0.15
_LEAST = 2


def run(spec: EarlyPart, ctx: RunContext) -> EarlyMade:
    """Train a few epochs; see `EarlyPart` and `EarlyMade`."""
    with one_thread():
        return _run(spec, ctx)


def _run(spec: EarlyPart, ctx: RunContext) -> EarlyMade:
    real = datasets.load(spec.dataset, ctx)
    device = torch.device("cuda" if spec.device == "gpu" else "cpu")
    data = real.train.to(device)
    most = spec.epochs or max(_LEAST + 1, math.ceil(_SHARE * spec.of))
    # The second split is later; the schedule is that of a whole training.
    last = 2 * most if spec.epochs is None else min(2 * spec.epochs, spec.of)
    network = build(spec.model, real.shape, len(real.classes), derived_seed(spec.seed, "early")).to(
        device
    )
    labels = real.train.labels.numpy()
    curve: list[EarlyEpoch] = []
    outputs: dict[int, FloatArray] = {}

    def after(epoch: int) -> bool:
        ctx.progress("training early", epoch, last, "epochs")
        found = logits(network, data.images, ctx.check).double().cpu().numpy()
        wrong = float((found.argmax(axis=1) != labels).mean())
        loss = float(cross_entropy(found, labels).mean())
        curve.append(EarlyEpoch(epoch=epoch, error=wrong, loss=loss))
        outputs[epoch] = found
        return epoch < last

    a_pass = steps_of(1, len(labels), spec.batch_size)
    train(
        network,
        data.images,
        data.labels,
        spec,
        a_pass * max(last, spec.of),
        derived_seed(spec.seed, "early"),
        ctx.check,
        Epochs(a_pass, after),
    )
    chosen = spec.epochs or separating([one.error for one in curve[:most]])
    second = min(2 * chosen, last)
    data_file = savez(logits=outputs[chosen], later=outputs[second], labels=labels)
    ctx.save_artifact("outputs.npz", data_file, "application/x-npz")
    return EarlyMade(
        epoch=chosen,
        second_epoch=second,
        curve=curve,
        classes=real.classes,
        versions={"torch": version("torch")},
    )


def separating(errors: list[float]) -> int:
    """The first epoch, 2 or later, in which the error falls by less than half of the largest fall
    so far; the last one where there is none.

    Args:
        errors: after epoch 1, 2, ...
    """
    falls = -np.diff([1.0, *errors])
    for epoch in range(_LEAST, len(errors) + 1):
        if falls[epoch - 1] < 0.5 * falls[: epoch - 1].max():
            return epoch
    return len(errors)
