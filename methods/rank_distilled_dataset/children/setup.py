"""Where networks are trained, and what they start from."""

from __future__ import annotations

import torch
from torch import nn

from methods.errors import JobError
from methods.jobtype import Resource
from methods.rank_distilled_dataset.data.splits import Parts
from methods.rank_distilled_dataset.networks.networks import build
from methods.seeds import derived_seed


def run_seed(seed: int, run: int) -> int:
    """The same for all candidates and baselines: paired by initial weights and orders."""
    return derived_seed("run", seed, run)


def teacher_seed(seed: int, place: int) -> int:
    """Of a teacher: no student begins from its weights, nor another teacher."""
    return derived_seed("teacher", seed, place)


def initial(model: str, real: Parts, seed: int, device: torch.device) -> nn.Module:
    """A network with the initial weights of a run."""
    shape, classes = real.real.shape, len(real.real.classes)
    return build(model, shape, classes, derived_seed("init", model, seed)).to(device)


def device_of(wanted: Resource) -> torch.device:
    """Where to train. Raises JobError where a GPU is asked for and there is none."""
    if wanted != "gpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise JobError("internal", "A GPU is asked for, and PyTorch finds none here.")
    # The same seed has to give the same curve.
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    return torch.device("cuda")


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
