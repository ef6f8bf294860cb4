"""Hidden states of a transformer for texts, a bounded number of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from methods.errors import JobError
from methods.inference.encoding import Encoding, Pooling
from methods.inference.model_registry import ModelDeclaration, Models

#: No text is longer, whatever the model can take: attention grows with the square.
MAX_TOKENS = 8192
#: Tokens of one forward pass with their padding; a text that is longer has a pass of its own.
BATCH_TOKENS = 8192
#: Hidden states that one forward pass may keep.
HIDDEN_BYTES = 1 << 30
#: Texts are sorted by length within windows of so many texts and characters.
WINDOW_TEXTS = 2048
WINDOW_CHARACTERS = 8 << 20


@dataclass(frozen=True)
class Encoder:
    """A loaded model with its tokenizer.

    Attributes:
        layers: transformer layers; hidden states are those plus the embeddings.
        width: columns of a hidden state.
        max_tokens: longest sequence, special tokens counted.
        revision: commit of the weights, if known.
    """

    model: Any
    tokenizer: Any
    layers: int
    width: int
    max_tokens: int
    revision: str | None


def load_encoder(source: ModelDeclaration) -> Encoder:
    """Load weights (safetensors only): float32 on a CPU, the declared dtype on a GPU.

    Code that comes with a model is never run. Of an encoder-decoder the encoder is taken.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    assert source.path is not None, "`Models.weights` finds only models with a path"
    where = {"revision": source.revision, "trust_remote_code": False}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = source.dtype if device == "cuda" else "float32"
    tokenizer = AutoTokenizer.from_pretrained(source.path, **where)
    model = AutoModel.from_pretrained(source.path, dtype=dtype, use_safetensors=True, **where)
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    model = model.to(device).eval().requires_grad_(False)
    text = model.config.get_text_config()
    text.use_cache = False
    return Encoder(
        model=model,
        tokenizer=tokenizer,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        max_tokens=_max_tokens(model, tokenizer),
        revision=getattr(model.config, "_commit_hash", None) or source.revision,
    )


def _max_tokens(model: Any, tokenizer: Any) -> int:
    limits = [MAX_TOKENS, tokenizer.model_max_length]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions:
        # RoBERTa's kind counts positions from after the padding token's.
        tables = (getattr(module, "position_embeddings", None) for module in model.modules())
        paddings = [getattr(table, "padding_idx", None) for table in tables]
        first = [padding + 1 for padding in paddings if padding is not None]
        limits.append(positions - max(first, default=0))
    return int(min(limits))


def check_layer(models: Models, name: str, layer: int) -> int:
    """The layer counted from the embeddings (0); reads the model's configuration only.

    Args:
        layer: the same, or negative from the last layer (-1) down.

    Raises:
        JobError: `model_unknown`, `model_rejected_request`, `model_unavailable`;
            `input_invalid` for a layer that the model does not have.
    """
    layers = models.load(name, _count_layers)
    if not -layers - 1 <= layer <= layers:
        raise JobError(
            "input_invalid",
            f"{name} has {layers} layers: layer is from {-layers - 1} to {layers}, not {layer}",
            details={"model": name, "layer": layer, "layers": layers},
        )
    return layer if layer >= 0 else layers + 1 + layer


def _count_layers(source: ModelDeclaration) -> int:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(
        source.path, revision=source.revision, trust_remote_code=False
    )
    return int(config.get_text_config().num_hidden_layers)


class HiddenStates:
    """The pooled hidden states of one layer of a model.

    Args:
        models: where the model is found by its name.
        layer: 0 is the embeddings, -1 the last layer (with its final normalisation).
        pooling: `last_token` and `mean` count the tokenizer's special tokens.

    Attributes:
        truncated: texts that were cut so far.

    Raises:
        JobError: see `check_layer`; `model_rejected_request` for `cls` without a class token.
    """

    def __init__(self, models: Models, name: str, layer: int, pooling: Pooling) -> None:
        self._layer = check_layer(models, name, layer)
        self._name, self._pooling = name, pooling
        self._encoder = models.load(name, load_encoder)
        if pooling == "cls" and self._encoder.tokenizer.cls_token_id is None:
            raise JobError("model_rejected_request", f"{name} has no class token; cls needs one")
        self.truncated = 0

    @property
    def width(self) -> int:
        """Columns."""
        return self._encoder.width

    def encoding(self) -> Encoding:
        """What the representations so far were computed with."""
        parameter = next(self._encoder.model.parameters())
        return Encoding(
            model=self._name,
            revision=self._encoder.revision,
            layer=self._layer,
            pooling=self._pooling,
            dtype=str(parameter.dtype).removeprefix("torch."),
            device=parameter.device.type,
            max_tokens=self._encoder.max_tokens,
            truncated=self.truncated,
        )

    def chunks(
        self, texts: Iterable[str], check: Callable[[], None]
    ) -> Iterator[NDArray[np.float32]]:
        """Representations in the order of the texts, float32 [rows, width] a chunk.

        Within a chunk, texts of similar length share a forward pass. Padding is to the right and
        masked, so a text's representation does not depend on its neighbours beyond rounding.

        Args:
            check: called before each forward pass; raises to stop.

        Raises:
            JobError: `input_invalid` naming the row (from 0) of a text that has no token.
        """
        start = 0
        for window in _windows(texts):
            tokens = self._tokenize(window, start)
            pooled = np.empty((len(tokens), self.width), dtype=np.float32)
            for rows in self._batches(tokens):
                check()
                pooled[rows] = self._forward([tokens[row] for row in rows])
            yield pooled
            start += len(window)

    def _tokenize(self, texts: list[str], start: int) -> list[list[int]]:
        tokenizer, longest = self._encoder.tokenizer, self._encoder.max_tokens
        options = {"return_attention_mask": False, "return_token_type_ids": False}
        found: list[list[int]] = tokenizer(texts, verbose=False, **options)["input_ids"]
        special = tokenizer.num_special_tokens_to_add()
        for index, ids in enumerate(found):
            if len(ids) <= special:
                raise JobError(
                    "input_invalid",
                    f"texts: row {start + index} has no token of {self._name}",
                    details={"row": start + index, "model": self._name},
                )
            if len(ids) > longest:
                cut = tokenizer(texts[index], truncation=True, max_length=longest, **options)
                found[index] = cut["input_ids"]
                self.truncated += 1
        return found

    def _batches(self, tokens: list[list[int]]) -> Iterator[list[int]]:
        """Row numbers of each forward pass, longest texts first."""
        kept = 1 if self._layer == self._encoder.layers else self._encoder.layers + 1
        budget = min(BATCH_TOKENS, HIDDEN_BYTES // (4 * self.width * kept))
        batch: list[int] = []
        for row in sorted(range(len(tokens)), key=lambda row: -len(tokens[row])):
            if batch and (len(batch) + 1) * len(tokens[batch[0]]) > budget:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _forward(self, tokens: list[list[int]]) -> NDArray[np.float32]:
        import torch

        lengths = np.array([len(ids) for ids in tokens])
        mask = np.arange(lengths[0]) < lengths[:, None]
        ids = np.full(mask.shape, self._encoder.tokenizer.pad_token_id or 0, dtype=np.int64)
        ids[mask] = np.concatenate(tokens)
        model, last = self._encoder.model, self._layer == self._encoder.layers
        with torch.inference_mode():
            attended = torch.from_numpy(mask.astype(np.int64)).to(model.device)
            found = model(
                input_ids=torch.from_numpy(ids).to(model.device),
                attention_mask=attended,
                output_hidden_states=not last,
            )
            states = found.last_hidden_state if last else found.hidden_states[self._layer]
            return _pool(states, attended, self._pooling).cpu().numpy()


def _pool(states: Any, mask: Any, pooling: Pooling) -> Any:
    """float32 [texts, width] of hidden states [texts, tokens, width]."""
    lengths = mask.sum(dim=1)
    if pooling == "mean":
        return (states.float() * mask[..., None]).sum(dim=1) / lengths[:, None]
    at = lengths - 1 if pooling == "last_token" else lengths * 0
    return states.take_along_dim(at[:, None, None], dim=1)[:, 0].float()


def _windows(texts: Iterable[str]) -> Iterator[list[str]]:
    window: list[str] = []
    characters = 0
    for text in texts:
        window.append(text)
        characters += len(text)
        if len(window) == WINDOW_TEXTS or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window
