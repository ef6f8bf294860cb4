"""The projector of an image-text model: where it is, and one that a job trained in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from methods.errors import JobError

#: What models call it.
NAMES = ("multi_modal_projector", "mm_projector", "connector")
CONFIG, WEIGHTS = "projector_config.json", "projector.safetensors"


def projector_of(model: nn.Module, name: str) -> tuple[str, nn.Module]:
    """The projector and its path in the model.

    Raises:
        JobError: `model_rejected_request` with the names of modules where none is called so.
    """
    found = [(path, one) for path, one in model.named_modules() if path.split(".")[-1] in NAMES]
    if len(found) != 1:
        outer = sorted({path for path, _ in model.named_modules() if 0 < path.count(".") < 2})
        raise JobError(
            "model_rejected_request",
            f"{name!r} has {'no' if not found else 'more than one'} module called "
            f"{', '.join(NAMES[:-1])} or {NAMES[-1]}; its modules: {', '.join(outer)[:1000]}.",
        )
    return found[0]


def tensors_of(path: str, projector: nn.Module) -> dict[str, Tensor]:
    """Its tensors, named as in the model that it is part of.

    Args:
        path: its own name there.
    """
    return {f"{path}.{key}": value.detach() for key, value in projector.state_dict().items()}


def save_projector(path: str, projector: nn.Module, base: str, folder: Path) -> None:
    """Write the projector's tensors with what they belong to.

    Args:
        path: its name in the model. base: the model that it is for.
    """
    own = {name: one.cpu().contiguous() for name, one in tensors_of(path, projector).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(own, folder / WEIGHTS, metadata={"format": "pt"})
    config = {"base_model_name_or_path": base, "module": path}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True), "utf-8")


def projector_base(path: str) -> str | None:
    """Where the model lies that the projector of a folder is for; None of anything else."""
    file = Path(path) / CONFIG
    if not file.is_file():
        return None
    return str(json.loads(file.read_text("utf-8"))["base_model_name_or_path"])


def with_projector(path: str, load: Callable[[str], Any]) -> tuple[Any, str]:
    """A model with the projector that a folder has for it; of any other folder or hub id its model.

    Args:
        load: makes a model of a path.

    Returns:
        The model, and where its tokenizer, processor and configuration are.

    Raises:
        ValueError: the projector is of another shape, or of no module of the model.
    """
    base = projector_base(path)
    if base is None:
        return load(path), path
    model = load(base)
    own = load_file(str(Path(path) / WEIGHTS))
    module, projector = projector_of(model, base)
    if set(own) != set(tensors_of(module, projector)):
        raise ValueError(f"the projector has other tensors than {module}")
    try:
        model.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise ValueError(f"the projector does not fit: {error}") from error
    return model, base
