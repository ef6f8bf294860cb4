"""A transformers image-text model with its processor, loaded for reading its attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from methods.errors import JobError
from methods.inference.image_text_model import image_token_of
from methods.inference.model_registry import ModelDeclaration, Models
from methods.inference.projector import with_projector
from methods.select_subset.proxy.model.attention_capture import IMPLEMENTATION
from methods.select_subset.proxy.rows.encoding import Encoder


@dataclass
class Proxy:
    """The model with what feeds it.

    Attributes:
        image_token_id: the token that stands for a piece of an image.
    """

    model: Any
    encoder: Encoder
    image_token_id: int
    device: torch.device

    @property
    def decoder(self) -> torch.nn.Module:
        """The language model inside."""
        return self.model.get_decoder()

    def trainable(self, vision: bool) -> dict[str, torch.nn.Parameter]:
        """The parameters to fine-tune by name: all, or those outside the image encoder."""
        if vision:
            return dict(self.model.named_parameters())
        encoder = self.model.get_encoder(modality="image")
        frozen = set() if encoder is self.model else {id(p) for p in encoder.parameters()}
        return {n: p for n, p in self.model.named_parameters() if id(p) not in frozen}

    def autocast(self) -> Any:
        """bfloat16 on a GPU, as it is elsewhere."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"
        )


def load_proxy(name: str, models: Models, max_tokens: int, seed: int = 0) -> Proxy:
    """Load a model of its own, which the job may change.

    Args:
        seed: of weights that its files lack.

    Raises:
        JobError: `model_unknown`, `model_rejected_request` for a server or a model without image
            tokens, `model_unavailable` when it cannot be loaded.
    """
    source = models.weights(name)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model, processor = _load(source)
    except (OSError, ValueError, ImportError, KeyError) as error:
        text = f"The model {name!r} cannot be loaded: {error}"
        raise JobError("model_unavailable", text[:2000], retryable=False) from error
    return make_proxy(model.to(device), processor, max_tokens, name)


def _load(source: ModelDeclaration) -> tuple[Any, Any]:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    assert source.path is not None, "only declarations with weights get here"
    dtype = torch.float32 if source.dtype == "auto" else getattr(torch, source.dtype)
    where = {"revision": source.revision, "trust_remote_code": False}

    def load(path: str) -> Any:
        return AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=IMPLEMENTATION,
            use_safetensors=True,
            **where,
        )

    model, own = with_projector(source.path, load)
    return model, AutoProcessor.from_pretrained(own, **where)


def make_proxy(model: Any, processor: Any, max_tokens: int, name: str = "the model") -> Proxy:
    """A proxy from a model that was loaded with the attention implementation `IMPLEMENTATION`."""
    config = model.config
    token = image_token_of(config)
    if token is None or getattr(processor, "tokenizer", None) is None:
        raise JobError(
            "model_rejected_request", f"{name!r} has no token for images, or no tokenizer."
        )
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if "mrope_section" in rope:
        # Their positions depend on more than the tokens; read as plain ones they would be wrong.
        raise JobError("model_rejected_request", f"{name!r} has multimodal rotary positions.")
    encoder = Encoder(processor, token, max_tokens)
    return Proxy(model, encoder, token, model.device)
