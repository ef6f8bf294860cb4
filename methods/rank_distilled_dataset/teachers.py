"""Teachers of soft labels: loaded from weights, or trained on the real data."""

from __future__ import annotations

import base64
import zlib
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import nn

from methods.context import RunContext
from methods.rank_distilled_dataset.array_file import invalid, open_arrays
from methods.rank_distilled_dataset.runs import Runner, Task, Teachers
from methods.rank_distilled_dataset.spec import Teacher
from methods.rank_distilled_dataset.training import accuracy, logits, train

#: Weights above this are trained anew by a later attempt; a checkpoint would be too large.
MAX_KEPT_BYTES = 16 << 20
_PREFIXES = ("state_dict.", "model.", "module.")


def prepare(
    spec: Teacher, tasks: list[Task], runner: Runner, ctx: RunContext
) -> tuple[Teachers, dict[str, float]]:
    """The teachers of a job and their test accuracies.

    Args:
        tasks: a full-data training for each model, in the order of `spec.models`.
    """
    networks, accuracies, digest = [], {}, sha256()
    for place, task in enumerate(tasks):
        network = runner.network(task)
        if spec.weights:
            with ctx.open_input(spec.weights[place]) as stream:
                label = f"teacher {task.model} ({spec.weights[place]})"
                _load(network, open_arrays(stream, label))
        else:
            ctx.progress("teachers", place, len(tasks), "teachers")
            _train(network, task, runner, ctx)
        network.eval().requires_grad_(False)
        test = task.evaluated["test"].examples.to(runner.device)
        accuracies[task.model] = accuracy(network, test)
        for tensor in network.state_dict().values():
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        networks.append(network)
    return Teachers(tuple(networks), digest.hexdigest()), accuracies


def _train(network: nn.Module, task: Task, runner: Runner, ctx: RunContext) -> None:
    key = f"teacher/{runner.key(task)}"
    kept = ctx.restore(key)
    if kept is not None:
        raw = np.frombuffer(zlib.decompress(base64.b64decode(kept)), dtype=np.float32)
        _from_flat(network, raw)
        return
    data = task.data.examples.to(runner.device)
    train(network, data, task.recipe, task.seed, check=ctx.check)
    flat = np.concatenate(
        [v.detach().cpu().float().numpy().reshape(-1) for v in network.state_dict().values()]
    )
    if flat.nbytes <= MAX_KEPT_BYTES:
        ctx.checkpoint(key, base64.b64encode(zlib.compress(flat.tobytes(), 1)).decode())


def _from_flat(network: nn.Module, flat: np.ndarray[Any, Any]) -> None:
    state, at = network.state_dict(), 0
    for name, tensor in state.items():
        part = flat[at : at + tensor.numel()].reshape(tuple(tensor.shape))
        state[name] = torch.from_numpy(part.copy()).to(tensor)
        at += tensor.numel()
    network.load_state_dict(state)


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


def soft_targets(teachers: Teachers, images: torch.Tensor) -> torch.Tensor:
    """Mean logits of the teachers for stored images, [N, classes], on the CPU."""
    device = next(teachers.networks[0].parameters()).device
    found = [logits(network, images.to(device)) for network in teachers.networks]
    return torch.stack(found).mean(dim=0).cpu().clone()
