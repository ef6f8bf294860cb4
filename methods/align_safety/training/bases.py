"""What is trained: weights of its own, never those that other jobs share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from methods.align_safety.overlap.weight_files import CONFIG, WEIGHTS, read_adapter
from methods.context import RunContext
from methods.errors import JobError
from methods.inference.loading import base_path, load_language_model
from methods.inference.model_registry import ModelDeclaration
from methods.results import ArtifactRef


@dataclass
class Base:
    """A model to train.

    Attributes:
        root: the declared model that it is, or that its adapter changes; None: a job made it whole.
        first: the adapter that it came with, merged into `model`.
        source: where its weights are, without that adapter.
    """

    model: Any
    tokenizer: Any
    root: str | None
    first: Path | None
    source: ModelDeclaration


def load_base(name: str, device: str, full: bool, ctx: RunContext) -> Base:
    """Load a copy of a model; an adapter that a job made is merged into its base.

    Adapters bring no code: the base is loaded with `trust_remote_code=False` before peft sees them.

    Raises:
        JobError: `model_unavailable`, `model_rejected_request`.
    """
    source, path = path_of(name, ctx)
    first = Path(source.path) if source.path and source.path != path else None
    own = source.model_copy(update={"path": path})
    try:
        model, tokenizer = load_language_model(own, "cuda" if device == "gpu" else "cpu")
        if full:
            # Small steps are lost in 16 bits.
            model = model.float()
        if first is not None:
            from peft import PeftModel

            # In float32 and only then in the weights' type: a small update would be rounded away.
            kind = model.dtype
            merged = PeftModel.from_pretrained(model.float(), str(first)).merge_and_unload()
            model = merged if full else merged.to(kind)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        text = f"The model {name!r} cannot be loaded: {error}"
        raise JobError("model_unavailable", text[:2000], retryable=False) from error
    made = ctx.models.is_made(name)
    root = ctx.models.base_of(name) if made else name
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Base(model, tokenizer, root, first, own)


def path_of(name: str, ctx: RunContext) -> tuple[ModelDeclaration, str]:
    """The declaration of weights, and where the configuration of the model lies."""
    source = ctx.models.weights(name)
    assert source.path is not None, "these are weights"
    return source, base_path(source.path)


def save_trained(base: Base, folder: Path, name: str, ctx: RunContext) -> ArtifactRef:
    """Save the model of an epoch: an adapter of a declared model, else the whole model.

    Where the base had an adapter, the saved one is both: factors side by side, so that it changes
    the declared model by the sum.
    """
    if not (folder / CONFIG).is_file():
        base.tokenizer.save_pretrained(folder)
        return ctx.save_model(name, folder)
    if base.root is None:
        return _merged(base, folder, name, ctx)
    if base.first is not None:
        _put_beside(base.first, folder)
    config = json.loads((folder / CONFIG).read_text("utf-8"))
    # The name that the operator gave it, not where it lies on this machine.
    config["base_model_name_or_path"] = base.root
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")
    return ctx.save_model(name, folder, base.root)


def _merged(base: Base, folder: Path, name: str, ctx: RunContext) -> ArtifactRef:
    """Of a model that a job made whole there is no name for an adapter to be of."""
    from peft import PeftModel

    target = ctx.workdir / f"{name}-merged"
    # Loaded again: training has put its own modules into the other one.
    model, tokenizer = load_language_model(base.source, "cpu")
    kind = model.dtype
    merged = PeftModel.from_pretrained(model.float(), str(folder)).merge_and_unload()
    merged.to(kind).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return ctx.save_model(name, target)


def _put_beside(first: Path, folder: Path) -> None:
    """Make an adapter the sum of it and an earlier one, exactly: B A = [B1 B2] [A1; A2].

    All modules get the same rank, filled up with zeros, so that every reader understands it.
    """
    parts = [read_adapter(place) for place in (first, folder)]
    ranks = [max(one.a.shape[0] for one in part.modules) for part in parts]
    total = sum(ranks)
    found: dict[str, torch.Tensor] = {}
    for number, part in enumerate(parts):
        start = sum(ranks[:number])
        for one in part.modules:
            a, b = one.a.read().float(), one.b.read().float()
            rows = slice(start, start + a.shape[0])
            keys = [f"base_model.model.{one.name}.lora_{which}.weight" for which in "AB"]
            for key, shape in zip(keys, ((total, a.shape[1]), (b.shape[0], total)), strict=True):
                found.setdefault(key, torch.zeros(shape))
            found[keys[0]][rows] = a
            found[keys[1]][:, rows] = one.scale * b
    config = {
        **parts[1].config,
        "r": total,
        "lora_alpha": total,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": sorted({one.name for part in parts for one in part.modules}),
        "layers_to_transform": None,
    }
    save_file(found, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config), "utf-8")
