"""Weights in safetensors files: one matrix in memory at a time, names matched or refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from methods.align_safety.overlap.spec import AdapterFrom, WeightsFrom
from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef, ModelRef
from methods.results import some_of

#: Names of an adapter's files in peft's format.
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_PREFIX, _LISTED = "base_model.model.", 20
_LAYER = re.compile(r"\.(\d+)\.")
_FACTOR = re.compile(r"^(?P<module>.+)\.lora_(?P<which>[AB])(?:\.\w+)?\.weight$")
#: Fields of an adapter's configuration that would make it something else than scale B A.
_UNSUPPORTED = (
    "use_dora",
    "modules_to_save",
    "layer_replication",
    "use_qalora",
    "alora_invocation_tokens",
    "trainable_token_indices",
)


@dataclass(frozen=True)
class Tensor:
    """Where a tensor is, and what."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def read(self) -> torch.Tensor:
        """Its values."""
        with safe_open(self.file, framework="pt") as opened:
            return opened.get_tensor(self.name)


class WeightFiles:
    """The tensors of a model's files, by name.

    Attributes:
        tensors: by name, in the order of files and names.
    """

    def __init__(self, files: Iterable[Path], what: str) -> None:
        self.what = what
        self.tensors: dict[str, Tensor] = {}
        for file in files:
            try:
                with safe_open(file, framework="pt") as opened:
                    for name in sorted(opened.keys()):
                        part = opened.get_slice(name)
                        shape = tuple(part.get_shape())
                        self.tensors[name] = Tensor(file, name, shape, part.get_dtype())
            except (SafetensorError, OSError) as error:
                raise JobError(
                    "input_invalid",
                    f"{what}: not a safetensors file ({error}). Only safetensors are read, no "
                    "pickle (.bin, .pt): save the model with safe_serialization=True.",
                ) from error
        if any(name.endswith((".qweight", ".qzeros")) for name in self.tensors):
            raise JobError(
                "input_invalid",
                f"{what}: the weights are quantised (GPTQ or AWQ); bring those in floating point.",
            )

    def of_module(self, module: str) -> Tensor:
        """The weight of a module, whatever stands before its layers in the file.

        Raises:
            JobError: `input_invalid`, there is none, or more than one.
        """
        if (found := self.tensors.get(f"{module}.weight")) is not None:
            return found
        # Files and modules differ in what stands before the layers in some families.
        parts = module.split(".")
        start = next((k for k, part in enumerate(parts) if part.isdigit()), 1) - 1
        tail = ".".join(["", *parts[max(start, 0) :], "weight"])
        near = [one for name, one in self.tensors.items() if f".{name}".endswith(tail)]
        if len(near) == 1:
            return near[0]
        raise JobError(
            "input_invalid",
            f"{self.what} has {'no' if not near else 'more than one'} weight of {module}; its "
            f"tensors are {some_of(list(self.tensors), _LISTED)}.",
            details={"module": module},
        )


@dataclass(frozen=True)
class Module:
    """A module that an adapter changes: dW = scale B A.

    Attributes:
        a: (r, n). b: (m, r). transposed: the base keeps its weight as (in, out).
    """

    name: str
    a: Tensor
    b: Tensor
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Adapter:
    """An adapter.

    Attributes:
        config: of peft. modules: in the order of names. folder: with all its files, if it has one.
    """

    config: dict[str, Any]
    modules: list[Module]
    folder: Path | None


def open_model(given: WeightsFrom, ctx: RunContext, what: str) -> WeightFiles:
    """The weights of a declared or made model, or of files.

    Raises:
        JobError: `input_invalid` for anything but safetensors; what opening them raises.
    """
    if given.model is not None:
        return WeightFiles(_files_of(given.model, ctx), what)
    files = []
    for place, ref in enumerate(given.inputs or []):
        copied = _copied(ref, ctx, f"{what}-{place}")
        if not _is_index(copied):
            files.append(copied)
    return WeightFiles(files, what)


def open_adapter(given: AdapterFrom, ctx: RunContext) -> Adapter:
    """An adapter in peft's format, of a model or as two files. Raises what `read_adapter` does."""
    if given.model is None:
        assert given.weights is not None, "the spec has both"
        assert given.config is not None, "the spec has both"
        weights = _copied(given.weights, ctx, "adapter")
        return _adapter(weights, _copied(given.config, ctx, "adapter-config"), None)
    source = ctx.models.weights(given.model)
    assert source.path is not None, "these are weights"
    return read_adapter(Path(source.path))


def read_adapter(folder: Path) -> Adapter:
    """An adapter in peft's format.

    Raises:
        JobError: `input_invalid` for a pickle, DoRA, a bias, saved modules and whatever else is not
            scale B A.
    """
    weights, config = folder / WEIGHTS, folder / CONFIG
    if not (weights.is_file() and config.is_file()):
        raise JobError("input_invalid", "The model is no adapter in peft's format.")
    return _adapter(weights, config, folder)


def _adapter(weights: Path, config: Path, folder: Path | None) -> Adapter:
    try:
        found = json.loads(config.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise JobError("input_invalid", f"update.adapter.config is not JSON: {error}") from error
    _check_config(found)
    modules = _modules(WeightFiles([weights], "update.adapter.weights"), found)
    return Adapter(found, modules, folder)


def _check_config(config: dict[str, object]) -> None:
    if config.get("peft_type") != "LORA":
        kind = str(config.get("peft_type"))[:60]
        raise JobError("input_invalid", f"The adapter's peft_type is {kind}; only LORA is read.")
    wrong = [name for name in _UNSUPPORTED if config.get(name)]
    if config.get("bias", "none") != "none":
        wrong.append("bias")
    if wrong:
        raise JobError(
            "input_invalid",
            f"The adapter has {', '.join(wrong)}, so that its update is not scale B A.",
            details={"keys": wrong},
        )


def _modules(files: WeightFiles, config: dict[str, object]) -> list[Module]:
    factors: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for name, tensor in files.tensors.items():
        found = _FACTOR.match(name)
        if found is None or len(tensor.shape) != 2:
            unknown.append(name)
            continue
        factors.setdefault(found["module"].removeprefix(_PREFIX), {})[found["which"]] = tensor
    unpaired = [name for name, own in factors.items() if set(own) != {"A", "B"}]
    if unknown or unpaired or not factors:
        raise JobError(
            "input_invalid",
            "The adapter's weights are not pairs of lora_A and lora_B alone: "
            f"{some_of([*unknown, *unpaired], _LISTED) or 'there are none'}.",
            details={"keys": [*unknown, *unpaired][:_LISTED]},
        )
    modules = []
    for name, own in factors.items():
        rank = own["A"].shape[0]
        if own["B"].shape[1] != rank:
            raise JobError("input_invalid", f"The factors of {name} have different ranks.")
        alpha = _of_pattern(config.get("alpha_pattern"), name, config.get("lora_alpha"))
        root = rank**0.5 if config.get("use_rslora") else rank
        modules.append(
            Module(name, own["A"], own["B"], alpha / root, bool(config.get("fan_in_fan_out")))
        )
    return modules


def _of_pattern(pattern: object, name: str, default: object) -> float:
    """A value that peft keeps by patterns of names."""
    if isinstance(pattern, dict):
        for key, value in pattern.items():
            if re.match(rf"(.*\.)?({key})$", name):
                default = value
                break
    if not isinstance(default, (int, float)) or isinstance(default, bool):
        raise JobError("input_invalid", "The adapter's configuration has no lora_alpha.")
    return float(default)


def kind_of(name: str) -> str:
    """What a module is in its layer, such as `up_proj`."""
    return name.removesuffix(".weight").rpartition(".")[2]


def layer_of(name: str) -> int | None:
    """The layer of a module, None outside of layers."""
    found = _LAYER.search(f".{name}.")
    return int(found[1]) if found else None


def is_embedding(name: str) -> bool:
    """Whether a tensor has a row for each token, as embeddings and heads have."""
    words = ("embed", "lm_head", "wte", "wpe", "output_embedding")
    return any(word in name for word in words)


def _files_of(model: ModelRef, ctx: RunContext) -> list[Path]:
    source = ctx.models.weights(model)
    assert source.path is not None, "these are weights"
    folder = Path(source.path)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        try:
            patterns = ["*.safetensors", "*.json"]
            folder = Path(
                snapshot_download(source.path, revision=source.revision, allow_patterns=patterns)
            )
        except (OSError, ValueError) as error:
            text = f"The model {model!r} cannot be loaded: {error}"
            raise JobError("model_unavailable", text[:2000]) from error
    files = sorted(folder.glob("*.safetensors"))
    files = [file for file in files if file.name != WEIGHTS]
    # Some models lie in their folder twice, in another format of names.
    files = [file for file in files if file.name.startswith("model")] or files
    if not files:
        raise JobError("input_invalid", f"The model {model!r} has no safetensors of a full model.")
    return files


def _copied(ref: InputRef, ctx: RunContext, name: str) -> Path:
    target = ctx.workdir / f"{name}.safetensors"
    with ctx.open_input(ref) as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
    return target


def _is_index(path: Path) -> bool:
    """Whether a file is the index of a sharded model, which says nothing that the files do not."""
    with path.open("rb") as reader:
        return reader.read(1) == b"{"
