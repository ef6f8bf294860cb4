"""From turns and images to the tensors that a model takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from jinja2 import TemplateError

from methods.select_subset.data.images import BadImageError, decode
from methods.select_subset.proxy.rows.conversations import Turn, UnusableRowError

IGNORED = -100
#: Rows of a batch, however short they are.
MOST_ROWS = 256
_OF_TEXT = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"}
_PLAIN = {"user": "USER: ", "assistant": "ASSISTANT: ", "system": ""}
#: Characters of a piece of text that is shown.
_SHOWN = 600


@dataclass
class Encoded:
    """One row as numbers.

    Attributes:
        ids: (L,) tokens. labels: (L,) the same at answer tokens, else -100.
        images: what the image processor gave, a row for each image.
    """

    ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    images: dict[str, torch.Tensor]

    @property
    def bytes(self) -> int:
        tensors = sum(t.numel() * t.element_size() for t in self.images.values())
        return self.ids.nbytes + self.labels.nbytes + tensors


class RowEncoder(Protocol):
    """Makes a row's tensors from its turns and its encoded images."""

    def __call__(self, turns: list[Turn], images: list[bytes]) -> Encoded:
        """Raises `UnusableRowError`."""


class Encoder:
    """Encodes rows by a processor's or tokenizer's own tokens, chat template and images.

    An image is encoded by itself, so that its tokens are as many as the processor says; text is
    encoded piece by piece between images and answers, as LLaVA does it.

    Args:
        processor: a tokenizer where the model reads text only.
        image_token_id: of the model, None for text only. max_tokens: longer rows lose their end.
    """

    def __init__(self, processor: Any, image_token_id: int | None, max_tokens: int) -> None:
        self.processor = processor
        self._tokenizer = getattr(processor, "tokenizer", None) or processor
        self._image_token: str | None = None
        if image_token_id is not None:
            self._image_token = self._tokenizer.convert_ids_to_tokens(image_token_id)
        self._image_id, self._max = image_token_id, max_tokens
        self.pad = self._tokenizer.pad_token_id or 0
        self.begin: int | None = self._tokenizer.bos_token_id
        self._template = getattr(processor, "chat_template", None) or getattr(
            self._tokenizer, "chat_template", None
        )

    def __call__(self, turns: list[Turn], images: list[bytes]) -> Encoded:
        """Encode a row.

        Raises:
            UnusableRowError: an image cannot be read, its tokens do not fit, or no answer is left.
        """
        if images and self._image_token is None:
            raise UnusableRowError("image", "is there, and the model reads text only")
        blocks = [self._image(n, data) for n, data in enumerate(images)]
        ids: list[int] = []
        learnt: list[bool] = []
        waiting = iter(blocks)
        for text, answer in self._spans(turns):
            pieces = text.split(self._image_token) if self._image_token else [text]
            for number, piece in enumerate(pieces):
                if number:
                    block = next(waiting, None)
                    if block is None:
                        raise UnusableRowError(
                            "conversations", "names the model's image token in a text"
                        )
                    ids += block[0]
                    learnt += [False] * len(block[0])
                tokens = self._tokenizer(piece, add_special_tokens=False)["input_ids"]
                ids += tokens
                learnt += [answer] * len(tokens)
        ids, learnt = self._begun(ids, learnt)
        array = np.array(ids, dtype=np.int32)
        if (array[self._max :] == self._image_id).any():
            raise UnusableRowError("image", f"its tokens do not fit into {self._max}")
        labels = np.where(learnt, array, IGNORED).astype(np.int32)[: self._max]
        # The first token is predicted by nothing.
        if not (labels[1:] != IGNORED).any():
            raise UnusableRowError("conversations", f"has no answer within {self._max} tokens")
        return Encoded(array[: self._max], labels, _joined([block[1] for block in blocks]))

    def shown(self, row: Encoded) -> list[tuple[str, bool]]:
        """The text of a row as the model reads it, in pieces, and whether each is learnt."""
        learnt = row.labels != IGNORED
        edges = np.flatnonzero(np.diff(learnt)) + 1
        pieces = []
        for part in np.split(np.arange(len(row.ids)), edges):
            text = self._tokenizer.decode(row.ids[part].tolist())
            if self._image_token is not None:
                text = re.sub(f"({re.escape(self._image_token)}\\s*)+", self._image_token, text)
            cut = (
                text if len(text) <= _SHOWN else text[: _SHOWN // 2] + " … " + text[-_SHOWN // 2 :]
            )
            pieces.append((cut, bool(learnt[part[0]])))
        return pieces

    def _begun(self, ids: list[int], learnt: list[bool]) -> tuple[list[int], list[bool]]:
        begin = self.begin
        if begin is None or (ids and ids[0] == begin):
            return ids, learnt
        return [begin, *ids], [False, *learnt]

    def _image(self, number: int, data: bytes) -> tuple[list[int], dict[str, torch.Tensor]]:
        try:
            picture = decode(data)
        except BadImageError as error:
            raise UnusableRowError("image", f"{number} {error}") from error
        try:
            found = self.processor(
                text=self._image_token,
                images=[picture],
                add_special_tokens=False,
                return_tensors="pt",
            )
        except (ValueError, TypeError, RuntimeError) as error:
            # Some processors refuse pictures, e.g. very long ones.
            raise UnusableRowError("image", f"{number} is refused: {error}"[:300]) from error
        tokens = found["input_ids"][0].tolist()
        tensors = {
            name: value
            for name, value in found.items()
            if isinstance(value, torch.Tensor) and name not in _OF_TEXT
        }
        return tokens, tensors

    def _spans(self, turns: list[Turn]) -> list[tuple[str, bool]]:
        """Text with image tokens, and whether it is an answer."""
        if turns[0].role == "text":
            return [(turns[0].text + (self._tokenizer.eos_token or ""), True)]
        if self._template is None:
            return self._plain(turns)
        messages = [turn.message(parts=self._image_token is not None) for turn in turns]
        whole = self._rendered(messages, False)
        if whole is None:
            raise UnusableRowError("conversations", "is refused by the model's chat template")
        # Some templates ask for an answer whether they are told to or not.
        asks = whole == self._rendered(messages, True)
        spans, at = [], 0
        for number, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            begun = self._rendered(messages[:number], True)
            ended = self._rendered(messages[: number + 1], False)
            if begun and ended and not asks and whole.startswith(begun) and whole.startswith(ended):
                start, stop = len(begun), len(ended)
            else:
                # A template that looks ahead, or at whole conversations only.
                start = whole.find(turn.text.strip(), at)
                stop = start + len(turn.text.strip())
            if start < at:
                raise UnusableRowError("conversations", "is changed by the model's chat template")
            spans += [(whole[at:start], False), (whole[start:stop], True)]
            at = stop
        return [*spans, (whole[at:], False)]

    def _rendered(self, messages: list[dict[str, Any]], begun: bool) -> str | None:
        """The text of a conversation; None where the template refuses it."""
        try:
            text = self.processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=begun
            )
        except (ValueError, TypeError, KeyError, IndexError, TemplateError):
            return None
        return str(text)

    def _plain(self, turns: list[Turn]) -> list[tuple[str, bool]]:
        """The layout of LLaVA 1.5, for models that say nothing of their own; where they read text
        only, one turn after the other."""
        end = self._tokenizer.eos_token or ""
        if self._image_token is None:
            return [
                (turn.text.strip() + end, True)
                if turn.role == "assistant"
                else (turn.text.strip() + "\n", False)
                for turn in turns
            ]
        spans = []
        for turn in turns:
            parts = (
                (self._image_token + "\n") if part is None else part.strip() for part in turn.parts
            )
            text = "".join(parts)
            if turn.role == "assistant":
                spans += [(_PLAIN["assistant"], False), (text + end, True)]
            else:
                spans.append((_PLAIN[turn.role] + text + " ", False))
        return spans


def _joined(images: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Image tensors one after the other; where sizes differ, 0 fills up."""
    if not images:
        return {}
    return {name: _stacked([image[name] for image in images]) for name in images[0]}


def _stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    if all(list(part.shape[1:]) == shape for part in parts):
        return torch.cat(parts)
    found = parts[0].new_zeros((sum(len(part) for part in parts), *shape))
    at = 0
    for part in parts:
        place = (slice(at, at + len(part)), *(slice(0, size) for size in part.shape[1:]))
        found[place] = part
        at += len(part)
    return found


@dataclass
class Batch:
    """Rows of a batch, padded on the right.

    Attributes:
        ids, labels: (B, L) int64. valid: (B, L) bool. images: for all rows one after the other.
    """

    ids: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor
    images: dict[str, torch.Tensor]

    @classmethod
    def of(cls, rows: list[Encoded], pad: int, device: torch.device) -> Batch:
        longest = max(len(row.ids) for row in rows)
        ids = np.full((len(rows), longest), pad, dtype=np.int64)
        labels = np.full((len(rows), longest), IGNORED, dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)] = row.ids
            labels[place, : len(row.ids)] = row.labels
        lengths = np.array([len(row.ids) for row in rows])
        valid = torch.from_numpy(np.arange(longest)[None] < lengths[:, None])
        images = _joined([row.images for row in rows if row.images])
        return cls(
            torch.from_numpy(ids).to(device),
            torch.from_numpy(labels).to(device),
            valid.to(device),
            {name: value.to(device) for name, value in images.items()},
        )

    def arguments(self) -> dict[str, torch.Tensor]:
        """What the model's forward takes."""
        return {
            "input_ids": self.ids,
            "attention_mask": self.valid.to(torch.int64),
            **self.images,
        }

    def answers(self, begin: int | None, pad: int) -> tuple[Batch, Batch]:
        """The answers without what they answer, after the token that begins a text if there is
        one, and this batch with the same tokens to be learnt."""
        learnt = self.labels.clone()
        if begin is None:
            # The first token of an answer is predicted by nothing when it stands alone.
            first = (learnt != IGNORED).to(torch.int8).argmax(dim=1, keepdim=True)
            learnt.scatter_(1, first, IGNORED)
        rows = []
        for ids, labels in zip(self.ids, self.labels, strict=True):
            answer = ids[labels != IGNORED]
            rows.append(
                answer if begin is None else torch.cat([answer.new_tensor([begin]), answer])
            )
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        lengths = torch.tensor([len(row) for row in rows], device=ids.device)
        valid = torch.arange(ids.shape[1], device=ids.device)[None] < lengths[:, None]
        alone = torch.where(valid, ids, IGNORED)
        alone[:, 0] = IGNORED
        return Batch(ids, alone, valid, {}), Batch(self.ids, learnt, self.valid, self.images)


def packed(lengths: npt.ArrayLike, tokens: int, most: int) -> list[npt.NDArray[np.int64]]:
    """Batches of rows of like length, the longest first.

    Args:
        lengths: (N,) tokens of each row. tokens: of a batch with its pads, unless one row has more.
        most: rows of a batch.

    Returns:
        Places in `lengths`, each once.
    """
    sizes = np.asarray(lengths)
    order = np.argsort(-sizes, kind="stable")
    found, at = [], 0
    while at < len(order):
        count = int(min(most, max(1, tokens // max(1, int(sizes[order[at]])))))
        found.append(order[at : at + count])
        at += count
    return found
