"""Which modules of a model get adapters."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig

from methods.align_safety.training.settings import Training
from methods.errors import JobError
from methods.inference.loading import kind_of_model
from methods.inference.model_registry import ModelDeclaration

_ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj", "query_key_value"}
_ATTENTION |= {"c_attn", "attn.c_proj", "dense", "Wqkv"}
_MLP = {"gate_proj", "up_proj", "down_proj", "gate_up_proj", "fc1", "fc2", "fc_in", "fc_out"}
_MLP |= {"c_fc", "mlp.c_proj", "dense_h_to_4h", "dense_4h_to_h", "w1", "w2", "w3"}
_UP = {"up_proj", "fc1", "fc_in", "c_fc", "dense_h_to_4h", "w3", "gate_up_proj"}
_GROUPS = {"mlp": _MLP, "up": _UP, "attention+mlp": _ATTENTION | _MLP}
#: Parts of a model that do not write its answers.
_ELSEWHERE = re.compile(r"(^|\.)(vision|visual|image|audio|draft|mtp|multi_modal)", re.IGNORECASE)
_LAYER = re.compile(r"\.(?:layers|h|blocks?|decoder\.layers)\.(\d+)\.")


@dataclass(frozen=True)
class Matched:
    """Modules that get adapters.

    Attributes:
        names: full names. layers: how many the model has. shapes: (out, in) of each.
    """

    names: list[str]
    layers: int
    shapes: list[tuple[int, int]]

    def trainable(self, r: int) -> int:
        """Weights of adapters of rank r."""
        return sum(r * (rows + columns) for rows, columns in self.shapes)


def skeleton(source: ModelDeclaration, base: str) -> Any:
    """The model without weights: its modules and their shapes."""
    shared = {"revision": source.revision, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(base, **shared)
    kind = kind_of_model(base, shared)
    with torch.device("meta"):
        return kind.from_config(config)


def match(model: Any, training: Training) -> Matched:
    """The modules that a configuration means.

    Raises:
        JobError: `input_invalid`: a name matches nothing, a layer is not there, or the rank is
            larger than a matrix; the message lists the modules there are.
    """
    linear = {
        name: _shape(module)
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and not _ELSEWHERE.search(name)
    }
    inside = {name: int(found[1]) for name in linear if (found := _LAYER.search(f".{name}."))}
    count = 1 + max(inside.values(), default=-1)
    lowest, highest = _range(training, count)
    known = sorted({name.rpartition(".")[2] for name in inside})
    wanted: str | list[str] = training.target_modules
    if isinstance(wanted, str):
        chosen = [name for name in inside if _kind(name) in _GROUPS[wanted]]
        missing: list[str] = [] if chosen else [wanted]
    else:
        chosen = [n for n in inside if any(n == one or n.endswith(f".{one}") for one in wanted)]
        missing = [w for w in wanted if not any(n == w or n.endswith(f".{w}") for n in chosen)]
    if missing:
        raise JobError(
            "input_invalid",
            f"target_modules: {', '.join(map(repr, missing))} match no module of a layer; there "
            f"are {', '.join(known) or 'none'}.",
            details={"modules": known},
        )
    chosen = [name for name in chosen if lowest <= inside[name] <= highest]
    for name in chosen:
        if training.r > min(linear[name]):
            raise JobError(
                "input_invalid",
                f"r {training.r} is larger than a side of {name}, which is {list(linear[name])}.",
                details={"module": name},
            )
    return Matched(chosen, count, [linear[name] for name in chosen])


def _kind(name: str) -> str:
    """The last part of a name; GPT-2 calls two modules `c_proj`."""
    *_, parent, last = ["", *name.split(".")]
    return f"{parent}.{last}" if last == "c_proj" else last


def _range(training: Training, count: int) -> tuple[int, int]:
    layers = training.layers
    if layers == "all":
        return 0, count - 1
    if layers == "middle":
        return count // 3, max(count // 3, math.floor(2 * count / 3) - 1)
    assert not isinstance(layers, str), "the others are above"
    if layers[1] >= count:
        raise JobError(
            "input_invalid",
            f"layers: {layers[1]} is not there; the model has the layers 0 to {count - 1}.",
            details={"layers": count},
        )
    return layers


def _shape(module: Any) -> tuple[int, int]:
    rows, columns = module.weight.shape
    # GPT-2's own kind of linear module keeps its weight the other way round.
    return (columns, rows) if type(module).__name__ == "Conv1D" else (rows, columns)


def parameters(model: Any) -> int:
    """Weights of a model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
