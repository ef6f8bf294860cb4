"""Runs `plan-augmentation-training`: one training of one arm."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save

from methods.context import RunContext
from methods.plan_augmentation.child_jobs import ArmMade, ArmPart
from methods.plan_augmentation.making.archive import read_images
from methods.plan_augmentation.training.classifier import train
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.training.session import accuracy, logits, one_thread
from methods.seeds import derived_seed


def run(spec: ArmPart, ctx: RunContext) -> ArmMade:
    """Train an arm; see `ArmPart` and `ArmMade`. The seeds are those of the run, not the arm."""
    with one_thread():
        return _run(spec, ctx)


def _run(spec: ArmPart, ctx: RunContext) -> ArmMade:
    real = datasets.load(spec.dataset, ctx)
    device = torch.device("cuda" if spec.device == "gpu" else "cpu")
    own, labels = real.train.images, real.train.labels
    images, targets = own, labels
    if spec.repeats is not None:
        rows = torch.from_numpy(np.repeat(np.arange(len(labels)), spec.repeats))
        images, targets = own[rows], labels[rows]
    if spec.use:
        new = read_images(spec.images, spec.use, real.shape, ctx)
        sources = torch.tensor([row for row, _ in spec.use])
        images = torch.cat([images, torch.from_numpy(real.normalised(new))])
        targets = torch.cat([targets, labels[sources]])
    network = build(
        spec.model, real.shape, len(real.classes), derived_seed(spec.seed, "network", spec.run)
    ).to(device)
    done = 0

    def check() -> None:
        nonlocal done
        ctx.progress("training", done, spec.steps, "steps")
        done += 1

    train(
        network,
        images.to(device),
        targets.to(device),
        spec,
        spec.steps,
        derived_seed(spec.seed, "run", spec.run),
        check,
    )
    right = accuracy(network, real.test.to(device), ctx.check)
    wrong = logits(network, own.to(device), ctx.check).cpu().argmax(dim=1) != labels
    weights = None
    if spec.keep_weights:
        state = {name: value.cpu() for name, value in network.state_dict().items()}
        kept = ctx.save_artifact("weights.safetensors", save(state), "application/octet-stream")
        weights = kept.id
    return ArmMade(
        images=len(images),
        accuracy=right,
        wrong=wrong.nonzero().flatten().tolist(),
        weights=weights,
    )
