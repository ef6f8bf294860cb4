"""CLIP: how well the image and the text of a row go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from methods.errors import JobError
from methods.inference.model_registry import ModelDeclaration, Models
from methods.select_subset.data.images import BadImageError, decode
from methods.select_subset.proxy.rows.conversations import Turn, UnusableRowError
from methods.select_subset.proxy.rows.encoding import Encoded, RowEncoder

_IMAGES = "pixel_values"


class ClipEncoder:
    """Encodes a row: all texts of its turns, cut where the model ends, and all its images."""

    def __init__(self, processor: Any, longest: int) -> None:
        self._processor, self._longest = processor, longest

    def __call__(self, turns: list[Turn], images: list[bytes]) -> Encoded:
        """Encode a row.

        Raises:
            UnusableRowError: an image cannot be read.
        """
        pixels = {}
        if images:
            found = self._processor.image_processor(
                images=[self._picture(n, data) for n, data in enumerate(images)],
                return_tensors="pt",
            )
            pixels = {_IMAGES: found[_IMAGES]}
        text = " ".join(part for turn in turns if (part := turn.text.strip()))
        tokens = self._processor.tokenizer(text, truncation=True, max_length=self._longest)
        ids = np.array(tokens["input_ids"], dtype=np.int32)
        return Encoded(ids, ids, pixels)

    def _picture(self, number: int, data: bytes) -> Any:
        try:
            return decode(data)
        except BadImageError as error:
            raise UnusableRowError("image", f"{number} {error}") from error


@dataclass
class Clip:
    """A model with an image and a text encoder into one space."""

    model: Any
    encoder: RowEncoder
    pad: int
    device: torch.device

    def use(self, weights: bytes | None) -> None:
        """A CLIP is read as it is."""
        assert weights is None, "a CLIP is not fine-tuned"

    def read(self, rows: list[Encoded]) -> dict[str, npt.NDArray[Any]]:
        """Unit embeddings (B, D) float32 of the image and of the text of each row.

        Of several images the mean of their unit embeddings; every row needs one.
        """
        counts = [len(row.images[_IMAGES]) for row in rows]
        batch = self.tensors(rows)
        pixels = batch.pop(_IMAGES)
        with torch.inference_mode(), self._autocast():
            images = _unit(self.model.get_image_features(pixel_values=pixels))
            texts = _unit(self.model.get_text_features(**batch))
        means = torch.stack([part.mean(dim=0) for part in images.split(counts)])
        return {"image_embedding": means.cpu().numpy(), "text_embedding": texts.cpu().numpy()}

    def tensors(self, rows: list[Encoded]) -> dict[str, torch.Tensor]:
        """What the model takes: texts padded on the right, images one after the other."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.pad, dtype=torch.int64)
        valid = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)] = torch.from_numpy(row.ids)
            valid[place, : len(row.ids)] = 1
        batch = {"input_ids": ids, "attention_mask": valid}
        batch[_IMAGES] = torch.cat([row.images[_IMAGES] for row in rows])
        return {name: value.to(self.device) for name, value in batch.items()}

    def _autocast(self) -> Any:
        on_gpu = self.device.type == "cuda"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on_gpu)


def _unit(output: Any) -> torch.Tensor:
    features = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(features.float(), dim=1)


def load_clip(name: str, models: Models) -> Clip:
    """Load a CLIP of transformers.

    Raises:
        JobError: `model_unknown`, `model_rejected_request` for another kind of model,
            `model_unavailable` when it cannot be loaded.
    """
    return models.load(name, _load)


def _load(source: ModelDeclaration) -> Clip:
    from transformers import AutoModel, AutoProcessor

    assert source.path is not None, "only declarations with weights get here"
    dtype = torch.float32 if source.dtype == "auto" else getattr(torch, source.dtype)
    where = {"revision": source.revision, "trust_remote_code": False}
    model = AutoModel.from_pretrained(source.path, dtype=dtype, use_safetensors=True, **where)
    model = model.eval()
    processor = AutoProcessor.from_pretrained(source.path, **where)
    if model.config.model_type != "clip":
        # Its relatives pad texts and pool them in ways of their own.
        kind = model.config.model_type
        raise JobError("model_rejected_request", f"{source.path!r} is no CLIP but {kind}.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    longest = int(model.config.get_text_config().max_position_embeddings)
    encoder = ClipEncoder(processor, longest)
    return Clip(model.to(device), encoder, processor.tokenizer.pad_token_id or 0, device)
