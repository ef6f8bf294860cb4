"""Teachers of soft labels: loaded from weights, or trained on the real data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from methods.arrays.named import invalid, open_arrays
from methods.context import RunContext
from methods.rank_distilled_dataset.children.setup import initial, run_seed
from methods.rank_distilled_dataset.children.spec import TEACHER, Teachers
from methods.rank_distilled_dataset.data.splits import Parts
from methods.rank_distilled_dataset.training.session import logits

_PREFIXES = ("state_dict.", "model.", "module.")


def load(spec: Teachers, real: Parts, device: torch.device, ctx: RunContext) -> list[nn.Module]:
    """The networks of a spec, in evaluation mode; those to be trained are, once for all jobs."""
    networks = [initial(model, real, run_seed(0, 0), device) for model in spec.models]
    for place, ref in enumerate(spec.weights):
        with ctx.open_input(ref) as stream:
            _load(networks[place], open_arrays(stream, f"teacher {spec.models[place]} ({ref})"))
    if spec.training:
        for child in ctx.fan_out(TEACHER.name, spec.training):
            with child.open("weights.npz") as stream:
                label = f"teacher {spec.models[child.place]} ({child.id})"
                _load(networks[child.place], open_arrays(stream, label))
    for network in networks:
        network.eval().requires_grad_(False)
    return networks


def _load(network: nn.Module, arrays: Any) -> None:
    wanted = network.state_dict()
    names = {}
    for name in arrays.names:
        short = name
        for prefix in _PREFIXES:
            short = short.removeprefix(prefix)
        names[short] = name
    absent = [name for name in wanted if name not in names and "num_batches" not in name]
    if absent:
        raise invalid(arrays.label, f"lacks {', '.join(absent[:4])}; it holds {arrays.shown}")
    state = {}
    for name, tensor in wanted.items():
        if name not in names:
            state[name] = tensor
            continue
        value = arrays.read(names[name])
        if value.shape != tuple(tensor.shape):
            raise invalid(
                arrays.label, f"has {name} of shape {value.shape}, not {tuple(tensor.shape)}"
            )
        state[name] = torch.from_numpy(np.array(value)).to(tensor)
    network.load_state_dict(state)


def soft_targets(networks: list[nn.Module], images: torch.Tensor) -> torch.Tensor:
    """Mean logits of the teachers for stored images, [N, classes], on the CPU."""
    device = next(networks[0].parameters()).device
    found = [logits(network, images.to(device)) for network in networks]
    return torch.stack(found).mean(dim=0).cpu().clone()
