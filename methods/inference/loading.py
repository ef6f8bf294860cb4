"""Weights and tokenizer of a declared language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

from methods.inference.model_registry import ModelDeclaration
from methods.inference.projector import projector_base, with_projector


def load_language_model(source: ModelDeclaration, device: str | None = None) -> tuple[Any, Any]:
    """Load weights (safetensors only) and tokenizer.

    Args:
        device: default: a GPU when there is one.

    Returns:
        The model, ready to answer, and its tokenizer.
    """
    assert source.path is not None, "weights have a path"
    device, dtype = place_of(source, device)
    shared = {"revision": source.revision, "trust_remote_code": False}
    base = projector_base(source.path) or base_path(source.path)
    # An adapter may have changed the tokenizer; most have none of their own.
    own = (Path(source.path) / "tokenizer_config.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(source.path if own else base, **shared)
    kind = kind_of_model(base, shared)

    def load(path: str) -> Any:
        return kind.from_pretrained(path, dtype=dtype, use_safetensors=True, **shared)

    model, _ = with_projector(source.path, load)
    return model.eval().to(device), tokenizer


def place_of(source: ModelDeclaration, device: str | None = None) -> tuple[str, str]:
    """Device and number format of a declared model; on a GPU when there is one."""
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    # bfloat16 is many times slower than float32 on most CPUs.
    return device, "float32" if source.dtype == "auto" and device == "cpu" else source.dtype


def base_path(path: str) -> str:
    """Where the model lies that an adapter changes; of a full model, the model itself."""
    adapter = Path(path) / "adapter_config.json"
    if not adapter.is_file():
        return path
    return str(json.loads(adapter.read_text("utf-8"))["base_model_name_or_path"])


def kind_of_model(path: str, shared: dict[str, Any]) -> Any:
    """The class of a model; one for images and texts answers texts without images too."""
    config = type(AutoConfig.from_pretrained(path, **shared))
    texts_only = config in MODEL_FOR_CAUSAL_LM_MAPPING
    if not texts_only and config in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM
