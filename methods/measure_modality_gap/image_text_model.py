"""Image-text models of transformers: how they are loaded, prompted and told apart."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from methods.errors import JobError
from methods.inference.model_registry import ModelDeclaration, Models


@dataclass(frozen=True)
class ImageTextModel:
    """A model with its processor.

    Attributes:
        image_token: id of the tokens of the language model's input that stand for an image.
        layers: of the language model. width: values of a state.
    """

    name: str
    model: Any
    processor: Any
    image_token: int
    layers: int
    width: int

    def prompt(self, text: str, image: bool) -> str:
        """A text with or without an image before it, by the model's chat template if it has one."""
        processor = self.processor
        if getattr(processor, "chat_template", None):
            content: list[dict[str, str]] = [{"type": "image"}] if image else []
            content.append({"type": "text", "text": text})
            turns = [{"role": "user", "content": content}]
            rendered: str = processor.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False
            )
            return rendered
        token = processor.tokenizer.convert_ids_to_tokens(self.image_token)
        return f"{token}{text}" if image else text

    def encode(self, texts: Sequence[str], images: Sequence[Any] | None) -> dict[str, Any]:
        """Inputs of the model, pads to the right; an image a text, or none at all."""
        prompts = [self.prompt(text, images is not None) for text in texts]
        if images is None:
            found = self.processor.tokenizer(prompts, return_tensors="pt", padding=True)
        else:
            found = self.processor(
                text=prompts,
                images=[[image] for image in images],
                return_tensors="pt",
                padding=True,
            )
        # Nothing is learned here, whatever a processor adds for that.
        kept = {name: value for name, value in found.items() if name != "labels"}
        return {name: value.to(self.model.device) for name, value in kept.items()}

    def states(self, inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """Hidden states (rows, tokens, width): the input of the first layer, then every output.

        The last one is after the final norm, as transformers has it.
        """
        more = {}
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            # Scores of the vocabulary would be the largest tensor, and nobody reads them.
            more["logits_to_keep"] = 1
        with torch.inference_mode():
            found = self.model(**inputs, **more, output_hidden_states=True, use_cache=False)
        states: tuple[torch.Tensor, ...] | None = getattr(found, "hidden_states", None)
        if states is None or states[0].shape[1] != inputs["input_ids"].shape[1]:
            raise JobError(
                "model_rejected_request",
                f"{self.name!r} has no image tokens in its language model's input: it brings "
                "images in another way, so that they have no states to compare.",
            )
        return states


def image_text_model(models: Models, name: str) -> ImageTextModel:
    """A declared model, or one that a job made.

    Raises:
        JobError: `model_unknown`, `model_unavailable`; `model_rejected_request` of a model without
            image tokens.
    """
    model, processor = models.load(name, _load)
    config = model.config
    token = getattr(config, "image_token_id", None)
    if token is None:
        token = getattr(config, "image_token_index", None)
    text = config.get_text_config()
    crossed = getattr(text, "cross_attention_layers", None)
    if token is None or crossed or getattr(processor, "tokenizer", None) is None:
        raise JobError(
            "model_rejected_request",
            f"{name!r} has no image tokens in its language model's input. Models such as LLaVA, "
            "Qwen-VL, SmolVLM and PaliGemma have.",
        )
    return ImageTextModel(
        name, model, processor, int(token), int(text.num_hidden_layers), int(text.hidden_size)
    )


def _load(source: ModelDeclaration) -> tuple[Any, Any]:
    assert source.path is not None, "weights have a path"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # bfloat16 is many times slower than float32 on most CPUs.
    dtype = "float32" if source.dtype == "auto" and device == "cpu" else source.dtype
    where = {"revision": source.revision, "trust_remote_code": False}
    model = AutoModelForImageTextToText.from_pretrained(
        source.path, dtype=dtype, use_safetensors=True, **where
    )
    processor = load_processor(source.path, where)
    processor.tokenizer.padding_side = "right"
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return model.eval().to(device), processor


def load_processor(path: str, where: dict[str, Any]) -> Any:
    """A model's processor; without its part for videos, which needs torchvision."""
    try:
        return AutoProcessor.from_pretrained(path, **where)
    except ImportError:
        kind = getattr(transformers, _processor_class(path))
        images = AutoImageProcessor.from_pretrained(path, **where)
        tokenizer = AutoTokenizer.from_pretrained(path, **where)
        template = Path(path) / "chat_template.jinja"
        text = template.read_text("utf-8") if template.is_file() else tokenizer.chat_template
        return _without_videos(kind)(images, tokenizer, chat_template=text)


def _processor_class(path: str) -> str:
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        file = Path(path) / name
        if file.is_file():
            found = json.loads(file.read_text("utf-8")).get("processor_class")
            if isinstance(found, str):
                return found
    raise ValueError("no file of the folder names its processor_class")


def _without_videos(kind: type[Any]) -> type[Any]:
    class ImagesOnly(kind):  # type: ignore[misc]
        """The same processor for images and texts."""

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

    ImagesOnly.__name__ = kind.__name__
    return ImagesOnly
