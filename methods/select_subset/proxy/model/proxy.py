"""A transformers language model, with images or without, loaded to be trained and read."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import torch

from methods.errors import JobError
from methods.inference.image_text_model import image_token_of, load_processor
from methods.inference.loading import kind_of_model
from methods.inference.model_registry import ModelDeclaration, Models
from methods.inference.projector import with_projector
from methods.select_subset.proxy.model.attention_capture import IMPLEMENTATION
from methods.select_subset.proxy.rows.encoding import IGNORED, Batch, Encoder
from methods.select_subset.schema.lora import Lora

#: Models that see the prompt both ways: their token types say where the answer begins. In others
#: a type of 1 is an image's token.
_PREFIXED = {"paligemma"}


@dataclass
class Proxy:
    """The model with what feeds it.

    Attributes:
        image_token_id: the token that stands for a piece of an image; None: it reads text only.
        adapters: what `lora` put into the model.
    """

    model: Any
    encoder: Encoder
    image_token_id: int | None
    device: torch.device
    adapters: Any = None

    @property
    def decoder(self) -> torch.nn.Module:
        """The language model inside."""
        return self.model.get_decoder()

    def source(self, batch: Batch) -> torch.Tensor:
        """(B, L) tokens that the others of a row are about: the image, or else the prompt."""
        if self.image_token_id is not None:
            return (batch.ids == self.image_token_id) & batch.valid
        return (batch.labels == IGNORED) & batch.valid

    def arguments(self, batch: Batch) -> dict[str, torch.Tensor]:
        """What the model's forward takes; models whose positions or masks follow the images are
        told which tokens are theirs."""
        given = batch.arguments()
        names = inspect.signature(self.model.forward).parameters
        if batch.images and "mm_token_type_ids" in names:
            given["mm_token_type_ids"] = self.source(batch).to(torch.int64)
        elif self.image_token_id is not None and "token_type_ids" in names:
            kinds = self.source(batch)
            if self.model.config.model_type in _PREFIXED:
                kinds = torch.cumsum(batch.labels != IGNORED, dim=1) > 0
            given["token_type_ids"] = kinds.to(torch.int64)
        return given

    def trainable(self, vision: bool) -> dict[str, torch.nn.Parameter]:
        """The parameters to fine-tune by name: the adapters, or all, or those outside the image
        encoder."""
        if self.adapters is not None:
            return {n: p for n, p in self.model.named_parameters() if ".lora_" in n}
        if vision or self.image_token_id is None:
            return dict(self.model.named_parameters())
        encoder = self.model.get_encoder(modality="image")
        frozen = set() if encoder is self.model else {id(p) for p in encoder.parameters()}
        return {n: p for n, p in self.model.named_parameters() if id(p) not in frozen}

    def adapt(self, lora: Lora, seed: int) -> None:
        """Put adapters into the model, which is then trained by them only.

        Raises:
            JobError: `model_rejected_request` where no layer has a name of `lora.modules`.
        """
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        torch.manual_seed(seed)
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            target_modules=_adapted(self.model, lora.modules),
            task_type="CAUSAL_LM",
        )
        try:
            self.adapters = LoraModel(self.model, {"default": config}, "default")
        except ValueError as error:
            raise JobError("model_rejected_request", f"No adapters fit: {error}"[:500]) from error

    def merged(self) -> Any:
        """The model with its adapters, if any, worked into its weights."""
        return self.model if self.adapters is None else self.adapters.merge_and_unload()

    def autocast(self) -> Any:
        """bfloat16 on a GPU, as it is elsewhere."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"
        )


def _adapted(model: Any, modules: list[str] | None) -> list[str]:
    """Paths of the linear layers of the language model that get adapters."""
    head = model.get_output_embeddings()
    inside = {id(module) for module in model.get_decoder().modules()}
    named = [
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and id(module) in inside
    ]
    if modules is None:
        return named
    wanted = re.compile("|".join(re.escape(name) for name in modules))
    found = [path for path in named if wanted.fullmatch(path.rpartition(".")[2])]
    if not found:
        kinds = sorted({path.rpartition(".")[2] for path in named})
        raise JobError(
            "model_rejected_request",
            f"lora.modules names no layer of the model, which has {', '.join(kinds)}.",
        )
    return found


def load_proxy(
    name: str, models: Models, max_tokens: int, seed: int = 0, lora: Lora | None = None
) -> Proxy:
    """Load a model of its own, which the job may change.

    Args:
        seed: of weights that its files lack, and of adapters. lora: adapters to put into it.

    Raises:
        JobError: `model_unknown`, `model_rejected_request` for a server or adapters that do not
            fit, `model_unavailable` when it cannot be loaded.
    """
    source = models.weights(name)
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model, processor = _load(source)
    except (OSError, ValueError, ImportError, KeyError) as error:
        text = f"The model {name!r} cannot be loaded: {error}"
        raise JobError("model_unavailable", text[:2000], retryable=False) from error
    proxy = make_proxy(model.to(device), processor, max_tokens, name)
    if lora is not None:
        proxy.adapt(lora, seed)
        proxy.model.to(device)
    return proxy


def _load(source: ModelDeclaration) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert source.path is not None, "only declarations with weights get here"
    dtype = torch.float32 if source.dtype == "auto" else getattr(torch, source.dtype)
    where = {"revision": source.revision, "trust_remote_code": False}

    def load(path: str) -> Any:
        return kind_of_model(path, where).from_pretrained(
            path,
            dtype=dtype,
            attn_implementation=IMPLEMENTATION,
            use_safetensors=True,
            **where,
        )

    model, own = with_projector(source.path, load)
    if kind_of_model(own, where) is AutoModelForCausalLM:
        return model, AutoTokenizer.from_pretrained(own, **where)
    return model, load_processor(own, where)


def make_proxy(model: Any, processor: Any, max_tokens: int, name: str = "the model") -> Proxy:
    """A proxy from a model that was loaded with the attention implementation `IMPLEMENTATION`.

    Args:
        processor: of the model, or its tokenizer where it reads text only.
    """
    token = image_token_of(model.config)
    if getattr(processor, "tokenizer", None) is None:
        token = None
    if model.get_output_embeddings() is None:
        raise JobError("model_rejected_request", f"{name!r} is no language model: it has no head.")
    encoder = Encoder(processor, token, max_tokens)
    return Proxy(model, encoder, token, model.device)
