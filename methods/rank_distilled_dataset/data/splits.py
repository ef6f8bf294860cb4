"""The real data of a job, split and digested as its trainings use it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch

from methods.context import RunContext
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.data.datasets import RealData, draw_subset, hold_out
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.spec import Dataset
from methods.seeds import derived_seed

#: Test images that learning curves are measured on, where only the last epoch counts.
MAX_CURVE = 1000
#: Data sets up to this size stay in memory for the next training.
MAX_KEPT_BYTES = 1 << 30


@dataclass
class Parts:
    """The real data as the trainings use it.

    Attributes:
        train: what full-data networks and random subsets are made of.
        digest: of that.
        evaluated: held-out part first, if there is any, then the test set.
        held_out: number of images.
    """

    real: RealData
    train: Examples
    digest: str
    evaluated: dict[str, Examples]
    held_out: int

    @property
    def tested(self) -> dict[str, Examples]:
        """All but the held-out part."""
        return {name: found for name, found in self.evaluated.items() if name != "held_out"}

    def subset(self, ipc: int, seed: int, run: int) -> Examples:
        """Random subset i, the same for all candidates and models of a data set, ipc and seed."""
        drawn = derived_seed("subset", self.digest, ipc, seed, run)
        rows = torch.from_numpy(draw_subset(self.train.labels.numpy(), ipc, drawn))
        return Examples(self.train.images[rows], self.train.labels[rows])


# A worker does many trainings on one data set.
_kept: tuple[str, Parts] | None = None


def load(dataset: Dataset, held_out: float | None, ctx: RunContext) -> Parts:
    """Read and split a data set; the one of the last call is still there.

    Raises:
        JobError: with the file and what is wrong about it.
    """
    global _kept
    name = sha256(dataset.model_dump_json(exclude={"files"}).encode() + repr(held_out).encode())
    for ref in dataset.files:
        with ctx.open_input(ref) as reader:
            while chunk := reader.read(1 << 20):
                name.update(chunk)
    key = name.hexdigest()
    if _kept is None or _kept[0] != key:
        _kept = None
        parts = split(datasets.load(dataset, ctx), held_out)
        if 4 * parts.real.train.images.numel() > MAX_KEPT_BYTES:
            return parts
        _kept = (key, parts)
    return _kept[1]


def split(real: RealData, held_out: float | None) -> Parts:
    """Hold a share of the training images out; None: the official rule chooses on the test set."""
    if held_out is None:
        return Parts(real, real.train, digest(real.train), {"test": real.test}, 0)
    held = torch.from_numpy(hold_out(real.train.labels.numpy(), held_out))
    rest = Examples(real.train.images[~held], real.train.labels[~held])
    kept = Examples(real.train.images[held], real.train.labels[held])
    evaluated = {"held_out": kept, "test": real.test}
    if len(real.test.labels) > MAX_CURVE:
        # Only the last epoch counts; the way there is drawn from a part of the test set.
        share = MAX_CURVE / len(real.test.labels)
        some = torch.from_numpy(hold_out(real.test.labels.numpy(), share))
        evaluated["curve"] = Examples(real.test.images[some], real.test.labels[some])
    return Parts(real, rest, digest(rest), evaluated, int(held.sum()))


def digest(examples: Examples) -> str:
    """A digest of images, labels and soft targets."""
    found = sha256()
    for tensor in (examples.images, examples.labels, examples.targets):
        if tensor is not None:
            array = np.ascontiguousarray(tensor.cpu().numpy())
            found.update(f"{array.dtype}{array.shape}".encode() + array.data)
    return found.hexdigest()
