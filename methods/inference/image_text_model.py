"""Image-text models of transformers: how they are loaded, prompted and told apart."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Sequence
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
from transformers.utils import cached_file

from methods.errors import JobError
from methods.inference.decoding import end_ids, greedy
from methods.inference.loading import place_of
from methods.inference.model_registry import ModelDeclaration, Models
from methods.inference.projector import with_projector

#: Prompts that are answered together.
_BATCH = 32
#: A token of less probability is next to impossible.
_IMPROBABLE = math.log(1e-3)


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        ids: its tokens, the one that ends it among them. cut: it ends at the limit.
    """

    text: str
    ids: list[int]
    cut: bool


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
        return f"{self.image_word}{text}" if image else text

    @property
    def image_word(self) -> str:
        """What stands for an image in a text that the processor reads."""
        own: str | None = getattr(self.processor, "image_token", None)
        return own or str(self.processor.tokenizer.convert_ids_to_tokens(self.image_token))

    def encode(self, texts: Sequence[str], images: Sequence[Any] | None) -> dict[str, Any]:
        """Inputs of the model, pads to the right; an image a text, or none at all."""
        return self.inputs([self.prompt(text, images is not None) for text in texts], images)

    def inputs(self, prompts: Sequence[str], images: Sequence[Any] | None) -> dict[str, Any]:
        """The same of prompts that are rendered already."""
        begin = self.processor.tokenizer.bos_token
        # Where the template has it, the tokenizer is not to put another one before it.
        there = bool(begin) and all(one.startswith(begin) for one in prompts)
        asked: dict[str, Any] = {"add_special_tokens": False} if there else {}
        asked |= {"text": list(prompts), "return_tensors": "pt", "padding": True}
        if images is None:
            found = self.processor.tokenizer(**asked)
        else:
            found = self.processor(images=[[image] for image in images], **asked)
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

    def answers(
        self,
        texts: Sequence[str],
        images: Sequence[Any] | None,
        most: int,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[Answer]:
        """What the model says, greedily.

        Prompts of one length make a batch: without pads an answer does not depend on the batch.

        Args:
            images: one a text; None: none at all. most: tokens of an answer.
            progress: called with the number of answers that are there.
        """
        encoded = [
            self.encode([text], None if images is None else [images[place]])
            for place, text in enumerate(texts)
        ]
        groups: dict[Any, list[int]] = {}
        for place, one in enumerate(encoded):
            alike = tuple((name, value.shape) for name, value in sorted(one.items()))
            groups.setdefault(alike, []).append(place)
        found: dict[int, Answer] = {}
        for places in groups.values():
            for start in range(0, len(places), _BATCH):
                part = places[start : start + _BATCH]
                inputs = {
                    name: torch.cat([encoded[place][name] for place in part])
                    for name in encoded[part[0]]
                }
                found |= zip(part, self._generated(inputs, most), strict=True)
                progress(len(found))
        return [found[place] for place in range(len(texts))]

    def oddities(self, texts: Sequence[str], answers: Sequence[Answer]) -> list[float | None]:
        """How odd the model itself finds answers, read after their texts without an image.

        Returns:
            Of each the share of its tokens, the first left out, that are next to impossible there
            (probability below 0.001): fluent text has few, whatever it says, while words thrown
            together have many. None for answers of fewer than two tokens.
        """
        prompts = [self.encode([text], None)["input_ids"] for text in texts]
        groups: dict[tuple[int, int], list[int]] = {}
        for place, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            if len(answer.ids) > 1:
                groups.setdefault((prompt.shape[1], len(answer.ids)), []).append(place)
        found: dict[int, float] = {}
        for (_, length), places in groups.items():
            for start in range(0, len(places), _BATCH):
                part = places[start : start + _BATCH]
                said = torch.tensor([answers[place].ids for place in part]).to(self.model.device)
                ids = torch.cat([torch.cat([prompts[place] for place in part]), said], dim=1)
                with torch.inference_mode():
                    scores = self.model(
                        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
                    ).logits[:, -length - 1 : -1]
                logs = scores.float().log_softmax(dim=-1)
                own = logs.gather(2, said.unsqueeze(2)).squeeze(2)[:, 1:]
                found |= zip(part, (own < _IMPROBABLE).double().mean(dim=1).tolist(), strict=True)
        return [found.get(place) for place in range(len(texts))]

    def _generated(self, inputs: dict[str, Any], most: int) -> list[Answer]:
        tokenizer = self.processor.tokenizer
        with torch.inference_mode():
            drawn = self.model.generate(
                **inputs,
                **greedy(self.model),
                max_new_tokens=most,
                pad_token_id=tokenizer.pad_token_id,
            )[:, inputs["input_ids"].shape[1] :].tolist()
        ends = set(end_ids(self.model))
        return [_cut(tokens, ends, most, tokenizer) for tokens in drawn]


def _cut(tokens: list[int], ends: set[int], most: int, tokenizer: Any) -> Answer:
    """An answer up to its end token, which counts."""
    count = next((at + 1 for at, one in enumerate(tokens) if one in ends), len(tokens))
    text = tokenizer.decode(tokens[:count], skip_special_tokens=True).replace("\x00", "\ufffd")
    over = count > 0 and tokens[count - 1] in ends
    return Answer(text, tokens[:count], not over and count >= most)


def image_text_model(models: Models, name: str) -> ImageTextModel:
    """A declared model, or one that a job made; others have it too, so nobody changes it.

    Raises:
        JobError: `model_unknown`, `model_unavailable`; `model_rejected_request` of a model without
            image tokens.
    """
    model, processor = models.load(name, _load)
    token = image_token_of(model.config)
    text = model.config.get_text_config()
    crossed = getattr(text, "cross_attention_layers", None)
    if token is None or crossed or getattr(processor, "tokenizer", None) is None:
        raise JobError(
            "model_rejected_request",
            f"{name!r} has no image tokens in its language model's input. Models such as LLaVA, "
            "Qwen-VL, SmolVLM and PaliGemma have.",
        )
    return ImageTextModel(
        name, model, processor, token, int(text.num_hidden_layers), int(text.hidden_size)
    )


def image_token_of(config: Any) -> int | None:
    """Id of the token that stands for a piece of an image, by either of its names."""
    for name in ("image_token_id", "image_token_index"):
        if (token := getattr(config, name, None)) is not None:
            return int(token)
    return None


def _load(source: ModelDeclaration) -> tuple[Any, Any]:
    assert source.path is not None, "weights have a path"
    device, dtype = place_of(source)
    where = {"revision": source.revision, "trust_remote_code": False}

    def load(path: str) -> Any:
        return AutoModelForImageTextToText.from_pretrained(
            path, dtype=dtype, use_safetensors=True, **where
        )

    model, own = with_projector(source.path, load)
    processor = load_processor(own, where)
    processor.tokenizer.padding_side = "right"
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return model.eval().requires_grad_(False).to(device), processor


def load_processor(path: str, where: dict[str, Any]) -> Any:
    """A model's processor; without its part for videos, which needs torchvision."""
    try:
        return AutoProcessor.from_pretrained(path, **where)
    except ImportError:
        kind = getattr(transformers, _processor_class(path, where))
        images = AutoImageProcessor.from_pretrained(path, **where)
        tokenizer = AutoTokenizer.from_pretrained(path, **where)
        own = _text_of(path, "chat_template.jinja", where)
        text = tokenizer.chat_template if own is None else own
        return _without_videos(kind)(images, tokenizer, chat_template=text)


def _processor_class(path: str, where: dict[str, Any]) -> str:
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        text = _text_of(path, name, where)
        found = None if text is None else json.loads(text).get("processor_class")
        if isinstance(found, str):
            return found
    raise ValueError("no file of the model names its processor_class")


def _text_of(path: str, name: str, where: dict[str, Any]) -> str | None:
    """A file of a folder or a hub id; None where it has none of this name."""
    found = cached_file(
        path, name, revision=where["revision"], _raise_exceptions_for_missing_entries=False
    )
    return None if found is None else Path(found).read_text("utf-8")


def _without_videos(kind: type[Any]) -> type[Any]:
    class ImagesOnly(kind):  # type: ignore[misc]
        """The same processor for images and texts."""

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

    ImagesOnly.__name__ = kind.__name__
    return ImagesOnly
