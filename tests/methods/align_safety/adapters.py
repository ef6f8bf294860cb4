"""The tiny model of the examples, and adapters of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaForCausalLM

from methods.inference.model_registry import ModelDeclaration, Models
from methods.local import LocalContext
from methods.registry import load_registry

HOWTO = Path(__file__).parents[3] / "examples/howto-llama"
MODELS = {"howto": ModelDeclaration(path=str(HOWTO))}


def adapter(folder: Path, seed: int = 1, **more: Any) -> Path:
    """A LoRA in peft's format with random factors."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["up_proj", "q_proj"]}
    config = LoraConfig(init_lora_weights=False, task_type="CAUSAL_LM", **(settings | more))
    get_peft_model(LlamaForCausalLM.from_pretrained(HOWTO), config).save_pretrained(folder)
    return folder


def merged(folder: Path) -> Any:
    """The model that plain peft makes of an adapter."""
    base = LlamaForCausalLM.from_pretrained(HOWTO)
    return PeftModel.from_pretrained(base, folder).merge_and_unload()


def run(folder: Path, name: str, spec: dict[str, Any], **more: Any) -> Any:
    """Run a job type in a folder; `howto` is a declared model."""
    job_type = load_registry()[name]
    parsed = job_type.spec.model_validate(spec)
    ctx = LocalContext(folder, parsed, models=Models(MODELS), inputs=folder, **more)
    return job_type.load_runner()(parsed, ctx)


def files(folder: Path, source: Path) -> dict[str, str]:
    """An adapter's two files as inputs in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "adapter_model.safetensors", folder / "weights.safetensors")
    shutil.copyfile(source / "adapter_config.json", folder / "config.json")
    return {"weights": "weights.safetensors", "config": "config.json"}


def edit(folder: Path, **fields: Any) -> None:
    """Change fields of an adapter's configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
