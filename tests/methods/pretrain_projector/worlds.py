"""A tiny LLaVA and captions of scenes, for tests of projectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from methods.local import LocalContext
from methods.pretrain_projector.result import Result
from methods.pretrain_projector.spec import Spec
from methods.registry import load_registry
from tests.toys import scenes, tiny_llava

WORDS = [*scenes.vocabulary(), "?", "0", "Z"]


def prompts(nouns: list[str], verbs: int) -> dict[str, Any]:
    """Questions about things."""
    return {"rows": scenes.prompts(nouns, verbs)}


def untrained(folder: Path) -> Path:
    """A LLaVA of a few thousand weights that has learned nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    return tiny_llava.save(folder, WORDS)


def small(model: Path | str, **changes: Any) -> dict[str, Any]:
    """A request that takes seconds."""
    return {
        "model": str(model),
        "captions": {"rows": scenes.captions(80)},
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 4,
        "held_out": 0.2,
        "measure": {"every": 15, "n_pairs": 8},
        **changes,
    }


def run(folder: Path, spec: dict[str, Any], ctx: LocalContext | None = None) -> Result:
    """Run a request in a folder."""
    parsed = Spec.model_validate(spec)
    own = LocalContext(folder, parsed) if ctx is None else ctx
    found = load_registry()["pretrain-projector"].load_runner()(parsed, own)
    assert isinstance(found, Result)
    return found
