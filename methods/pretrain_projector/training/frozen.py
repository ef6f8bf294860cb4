"""An image-text model whose tower and language model stay as they are, taken apart at its
projector."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from methods.errors import JobError
from methods.inference.image_text_model import ImageTextModel
from methods.inference.projector import projector_of
from methods.measure_modality_gap.reading.pairs import made_image
from methods.pretrain_projector.settings import Recipe

#: How far own logits may be from the model's, as a share of the largest.
_NEAR = {torch.float32: 1e-3}
_NEAR_IN_16_BITS = 5e-2


class _FoundError(Exception):
    """Ends a forward pass once the projector's input is there; no fault."""


@dataclass
class Frozen:
    """A model, its projector, and the prompt that stands before every caption.

    Attributes:
        projector: a copy of the model's own, in float32: the model itself is shared and stays as
            it is. path: its name in the model.
        prompt: (P,) ids. places: (image tokens,) where the image's tokens are in it.
        end: id that ends a caption; None: the tokenizer has none.
    """

    model: ImageTextModel
    path: str
    projector: nn.Module
    prompt: Tensor
    places: Tensor
    end: int | None

    @classmethod
    def of(cls, model: ImageTextModel, recipe: Recipe) -> Frozen:
        """Take a model apart.

        Raises:
            JobError: `model_rejected_request` where its image tokens do not come from its projector
                alone, one image at a time.
        """
        path, own = projector_of(model.model, model.name)
        # Half precision would round small steps away.
        projector = copy.deepcopy(own).float()
        picture = made_image("noise", 0, 0)
        prompt = _prompt(model, recipe, picture)
        places = (prompt == model.image_token).nonzero().squeeze(1)
        if not len(places):
            raise JobError(
                "model_rejected_request", f"The prompt of {model.name!r} has no image tokens."
            )
        end = model.processor.tokenizer.eos_token_id
        found = cls(model, path, projector, prompt, places, end)
        found._check(picture)
        return found

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.model.model.device

    def features(self, images: Sequence[Any]) -> Tensor:
        """What the projector gets of images: (images, ..., width).

        Raises:
            JobError: `model_rejected_request` of images of different numbers of tokens.
        """
        caught: list[Tensor] = []

        def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if len(args) + len(kwargs) == 1:
                caught.extend(one for one in (*args, *kwargs.values()) if torch.is_tensor(one))
            raise _FoundError

        inputs = self._inputs(images)
        own = self.model.model.get_submodule(self.path)
        hook = own.register_forward_pre_hook(catch, with_kwargs=True)
        try:
            with torch.inference_mode():
                self.model.model(**inputs)
        except _FoundError:
            pass
        finally:
            hook.remove()
        if len(caught) != 1 or caught[0].shape[0] % len(images):
            raise self._rejected("its projector is given more than features of one image each")
        each = caught[0].clone()
        return each.reshape(len(images), -1, *each.shape[1:])

    def tokens(self, features: Tensor) -> Tensor:
        """Image tokens (images, tokens, d) of features, in the type of the language model."""
        flat = features.flatten(0, 1).to(self.device, torch.float32)
        found: Tensor = self.projector(flat)
        return found.reshape(len(features), -1, found.shape[-1])

    def embedded(self, ids: Tensor) -> Tensor:
        """Embeddings of text tokens."""
        with torch.no_grad():
            found: Tensor = self.model.model.get_input_embeddings()(ids.to(self.device))
        return found

    def sequence(self, image: Tensor, text: Tensor) -> Tensor:
        """Input of the language model (images, P + L, d): the prompt with the image's tokens, then
        the text's embeddings."""
        prompt = self.embedded(self.prompt).expand(len(image), -1, -1)
        whole = prompt.index_copy(1, self.places.to(self.device), image.to(prompt.dtype))
        return torch.cat([whole, text.to(prompt.dtype)], dim=1)

    def logits(self, sequence: Tensor, mask: Tensor, keep: int) -> Tensor:
        """Scores (images, keep, vocabulary) of what follows the last `keep` tokens.

        Args:
            mask: (images, P + L), 1 for a real token; pads are to the right.
        """
        found: Tensor = self.model.model(
            inputs_embeds=sequence,
            attention_mask=mask.to(self.device),
            logits_to_keep=keep,
            use_cache=False,
        ).logits
        return found.float()

    def _inputs(self, images: Sequence[Any]) -> dict[str, Any]:
        """Inputs of the model for images that stand alone."""
        found = self.model.inputs([self.model.image_word] * len(images), images)
        counts = (found["input_ids"] == self.model.image_token).sum(dim=1)
        if (counts != len(self.places)).any():
            raise self._rejected("images give different numbers of tokens")
        return found

    def _check(self, picture: Any) -> None:
        """Own logits are those of the model."""
        image = self.tokens(self.features([picture]))
        if image.shape[1] != len(self.places):
            raise self._rejected("its projector gives other tokens than its prompt has places for")
        mask = torch.ones(1, len(self.prompt), dtype=torch.long)
        with torch.inference_mode():
            empty = self.embedded(self.prompt[:0].unsqueeze(0))
            own = self.logits(self.sequence(image, empty), mask, 1)
            inputs = self._inputs([picture])
            inputs |= {"input_ids": self.prompt.unsqueeze(0).to(self.device)}
            inputs |= {"attention_mask": mask.to(self.device)}
            theirs = self.model.model(**inputs).logits[:, -1:].float()
        near = _NEAR.get(self.model.model.dtype, _NEAR_IN_16_BITS)
        if (own - theirs).abs().max() > near * theirs.abs().max():
            raise self._rejected("image tokens reach its language model in a way of its own")

    def _rejected(self, why: str) -> JobError:
        return JobError(
            "model_rejected_request",
            f"The projector of {self.model.name!r} cannot be trained by itself: {why}. Models of "
            "LLaVA's kind can.",
        )


def _prompt(model: ImageTextModel, recipe: Recipe, picture: Any) -> Tensor:
    """Ids of what stands before a caption."""
    tokenizer = model.processor.tokenizer
    row: Tensor
    if recipe.template == "model":
        row = model.encode([recipe.instruction], [picture])["input_ids"][0].cpu()
        return row
    row = model.inputs([model.image_word], [picture])["input_ids"][0].cpu()
    ends = {tokenizer.eos_token_id} - {tokenizer.bos_token_id}
    if len(row) and int(row[-1]) in ends:
        row = row[:-1]
    begin = tokenizer.bos_token_id
    if begin is not None and begin not in row.tolist():
        row = torch.cat([torch.tensor([begin]), row])
    return row
