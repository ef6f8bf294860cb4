"""Image-to-image pipelines of diffusers that the operator declared."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image
from PIL import Image

from methods.context import RunContext
from methods.errors import JobError
from methods.inference.loading import place_of
from methods.inference.model_registry import ModelDeclaration
from methods.plan_augmentation.settings import PipelineGenerator
from methods.typing import Float32Array


def pipeline(name: str, ctx: RunContext) -> Any:
    """A declared pipeline.

    Raises:
        JobError: `model_unknown`, `model_unavailable`; `model_rejected_request` of a server or of
            a model that takes no image.
    """
    found = ctx.models.load(name, _load)
    taken = inspect.signature(found.__call__).parameters
    lacking = [one for one in ("image", "strength", "prompt", "generator") if one not in taken]
    if lacking:
        raise JobError(
            "model_rejected_request",
            f"{name!r} is no image-to-image pipeline: it does not take {', '.join(lacking)}.",
        )
    return found


def _load(source: ModelDeclaration) -> Any:
    assert source.path is not None, "weights have a path"
    device, dtype = place_of(source)
    pipelines: Any = AutoPipelineForImage2Image
    found = pipelines.from_pretrained(
        source.path,
        revision=source.revision,
        dtype=getattr(torch, "float16" if dtype == "auto" else dtype),
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=Path(source.path).is_dir(),
    )
    found.set_progress_bar_config(disable=True)
    if device != "cpu":
        found.enable_attention_slicing()
    return found.to(device)


def drawn(
    pipe: Any,
    asked: PipelineGenerator,
    sources: Float32Array,
    names: Sequence[str],
    strength: float,
    seeds: Sequence[int],
) -> Float32Array:
    """New versions of sources (N, C, H, W) from 0 to 1, in their size.

    Grey images are shown in colour and averaged back. Each has a generator of its own on the CPU,
    so that it depends on no other.
    """
    channels, height, width = sources.shape[1:]
    pixels = np.round(np.clip(sources, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    if channels == 1:
        pixels = pixels.repeat(3, axis=3)
    size = (asked.size, asked.size)
    pictures = [Image.fromarray(one).resize(size, Image.Resampling.BICUBIC) for one in pixels]
    found = pipe(
        prompt=[asked.prompt.replace("{class}", name) for name in names],
        image=pictures,
        strength=strength,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
    ).images
    back = np.stack(
        [np.asarray(one.resize((width, height), Image.Resampling.BOX)) for one in found]
    )
    unit: Float32Array = back.astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
    if channels == 1:
        unit = unit.mean(axis=1, keepdims=True, dtype=np.float32)
    return unit
