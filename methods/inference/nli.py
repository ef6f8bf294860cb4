"""Natural language inference: does one text entail, contradict or leave open another?"""

from __future__ import annotations

import re
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from methods.inference.deberta import bounded_positions
from methods.inference.model_registry import ModelDeclaration
from methods.inference.nli_cache import Memory, NLICost
from methods.inference.pair_tokenizer import Pair, PairTokenizer
from methods.typing import FloatArray

_CLASSES = ("contradict", "neutral", "entail")
_ENTAILED = (0.0, 0.0, 1.0)
#: Padded tokens of a forward pass: on a CPU larger batches gain nothing.
_TOKENS_CPU, _TOKENS_GPU = 2048, 65_536
#: What a forward pass costs beside its tokens, in tokens: on a CPU 12 for a model of 6 layers x 384
#: and fewer for larger ones; a GPU is rarely full.
_PASS_CPU, _PASS_GPU = 3, 4096
_KEPT_PAIRS = 400_000
_REMEMBERED_AT_ONCE = 2_000


def load_nli(source: ModelDeclaration) -> NLI:
    """Load a sequence-classification model with NLI labels.

    Raises:
        ValueError: its labels do not name entailment, neutral and contradiction.
    """
    assert source.path is not None, "weights have a path"
    cuda = torch.cuda.is_available()
    dtype = source.dtype if source.dtype != "auto" else "bfloat16" if cuda else "float32"
    shared = {"revision": source.revision, "trust_remote_code": False}
    model = AutoModelForSequenceClassification.from_pretrained(
        source.path, dtype=dtype, use_safetensors=True, **shared
    )
    tokenizer = AutoTokenizer.from_pretrained(source.path, **shared)
    return NLI(model.eval().to("cuda" if cuda else "cpu"), tokenizer)


class NLI:
    """Scores pairs: each different pair once, equal texts not at all, across calls."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._order = label_order(model.config.id2label)
        limit = getattr(model.config, "max_position_embeddings", None) or 512
        # RoBERTa counts its positions from the padding index on.
        self._limit = min(limit, tokenizer.model_max_length, 512)
        self._pairs, self._bound = PairTokenizer(tokenizer, self._limit), bounded_positions(model)
        self._cache: OrderedDict[bytes, tuple[float, ...]] = OrderedDict()
        self.cost = NLICost()

    def probabilities(
        self,
        pairs: Sequence[Pair],
        check: Callable[[], None] = lambda: None,
        memory: Memory | None = None,
    ) -> FloatArray:
        """(P, 3) probabilities of contradiction, neutral, entailment of (premise, hypothesis).

        Args:
            check: called between batches; may raise to end the work.
            memory: what was scored before, here or elsewhere, and is added to.

        A pair beyond the model's length is read in windows: each part of the hypothesis has the
        best supporting and the worst contradicting part of the premise; the pair has the least
        supported and the most contradicted part of the hypothesis, and what is left is neutral.
        """
        self.cost.asked += len(pairs)
        found: dict[Pair, tuple[float, ...]] = {}
        missing: dict[Pair, bytes] = {}
        for pair in dict.fromkeys(pairs):
            if pair[0] == pair[1]:
                found[pair] = _ENTAILED
                continue
            key = blake2b(f"{len(pair[0])} {pair[0]}{pair[1]}".encode(), digest_size=16).digest()
            if (known := self._cache.get(key)) is not None:
                self._cache.move_to_end(key)
                found[pair] = known
            else:
                missing[pair] = key
        for pair, row in self._elsewhere(missing, check, memory):
            found[pair] = self._cache[missing[pair]] = row
        while len(self._cache) > _KEPT_PAIRS:
            self._cache.popitem(last=False)
        return np.array([found[pair] for pair in pairs], dtype=np.float64).reshape(-1, 3)

    def _elsewhere(
        self, missing: dict[Pair, bytes], check: Callable[[], None], memory: Memory | None
    ) -> Iterator[tuple[Pair, tuple[float, ...]]]:
        """From the memory, or else from the model."""
        if memory is None:
            yield from self._fresh(list(missing), check)
            return
        keys = {pair: self.digest + key for pair, key in missing.items()}
        recalled = memory.recall(list(keys.values()))
        known = {pair: recalled[key] for pair, key in keys.items() if key in recalled}
        self.cost.recalled += len(known)
        for pair, value in known.items():
            yield pair, struct.unpack("<3d", value)
        fresh: dict[bytes, bytes] = {}
        for pair, row in self._fresh([pair for pair in missing if pair not in known], check):
            fresh[keys[pair]] = struct.pack("<3d", *row)
            yield pair, row
            if len(fresh) >= _REMEMBERED_AT_ONCE:
                memory.remember(fresh)
                fresh = {}
        memory.remember(fresh)

    def _fresh(
        self, pairs: list[Pair], check: Callable[[], None]
    ) -> Iterator[tuple[Pair, tuple[float, ...]]]:
        grids = {pair: self._pairs.windows(pair) for pair in pairs}
        grids = {pair: grid for pair, grid in grids.items() if grid != [[pair]]}
        whole = dict.fromkeys(pair for pair in pairs if pair not in grids)
        parts = dict.fromkeys(part for grid in grids.values() for row in grid for part in row)
        found: dict[Pair, FloatArray] = {}
        for part, rows in self._score(list(whole | parts), check):
            for pair, row in zip(part, rows, strict=True):
                if pair in parts:
                    found[pair] = row
                if pair in whole:
                    yield pair, tuple(row.tolist())
        for pair, grid in grids.items():
            yield pair, _over_windows([[found[part] for part in row] for row in grid])

    def is_long(self, first: str, second: str) -> bool:
        """Whether a pair of these is read in windows."""
        return self._pairs.windows((first, second)) != [[(first, second)]]

    def shortened(self, frame: str, pair: Pair) -> str:
        """The end of a frame that leaves both texts of a pair whole; see `PairTokenizer`."""
        return self._pairs.shortened(frame, pair)

    @cached_property
    def digest(self) -> bytes:
        """Names the weights and the tokenizer by their content, wherever they were loaded from."""
        content = blake2b(f"nli/windows/{self._limit}".encode(), digest_size=16)
        content.update(self._tokenizer.backend_tokenizer.to_str().encode())
        for name, tensor in sorted(self._model.state_dict().items()):
            content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return content.digest()

    def _score(self, pairs: list[Pair], check: Callable[[], None]) -> Any:
        """Batches of pairs of like length with their (b, 3) probabilities."""
        if not pairs:
            return
        tokens = self._pairs(pairs)
        lengths = np.array([len(pair.ids) for pair in tokens])
        device = self._model.device
        costs = (_TOKENS_GPU, _PASS_GPU) if device.type == "cuda" else (_TOKENS_CPU, _PASS_CPU)
        for rows in by_length(lengths, *costs):
            check()
            batch = {
                name: torch.from_numpy(values).to(device)
                for name, values in self._pairs.padded([tokens[row] for row in rows]).items()
            }
            if self._bound is not None:
                self._bound(batch["input_ids"].shape[1])
            with torch.inference_mode():
                logits = self._model(**batch).logits
            self.cost.scored += len(rows)
            self.cost.forwards += 1
            self.cost.padded_tokens += batch["input_ids"].numel()
            scores = torch.softmax(logits.double(), dim=-1).cpu().numpy()
            yield [pairs[i] for i in rows], scores[:, self._order]


def _over_windows(grid: list[list[FloatArray]]) -> tuple[float, ...]:
    """One verdict of the parts of a hypothesis by those of a premise."""
    values = np.array(grid)
    contradiction = values[..., 0].max(axis=1).max()
    entailment = values[..., 2].max(axis=1).min()
    neutral = max(0.0, 1.0 - contradiction - entailment)
    total = contradiction + entailment + neutral
    return contradiction / total, neutral / total, entailment / total


def by_length(lengths: npt.NDArray[np.int64], budget: int, overhead: int = 0) -> list[list[int]]:
    """Batches of rows of like length; none has more than `budget` padded tokens (one row may).

    Args:
        lengths: (N,) tokens of the rows.
        overhead: what a batch costs beside its tokens, in tokens: rows of different lengths share
            one where that is cheaper than their padding. Found by dynamic programming over the
            different lengths.
    """
    order = np.argsort(lengths, kind="stable")
    width, first = np.unique(lengths[order], return_index=True)
    ends = np.append(first, len(order))
    best, opens = np.zeros(len(ends)), np.zeros(len(ends), dtype=np.int64)
    for k in range(1, len(ends)):
        tokens = (ends[k] - ends[:k]) * width[k - 1]
        costs = best[:k] + tokens + overhead * np.ceil(tokens / budget)
        opens[k] = np.argmin(costs)
        best[k] = costs[opens[k]]
    batches: list[list[int]] = []
    k = len(width)
    while k:
        rows = order[ends[opens[k]] : ends[k]][::-1]
        size = max(1, budget // int(width[k - 1]))
        batches += [rows[at : at + size].tolist() for at in range(0, len(rows), size)]
        k = int(opens[k])
    return batches


def label_order(id2label: dict[int, str]) -> list[int]:
    """Where contradiction, neutral and entailment stand among a model's outputs.

    Raises:
        ValueError: a label is missing or named otherwise.
    """
    order = []
    for name in _CLASSES:
        places = [int(i) for i, label in id2label.items() if re.match(name, label.lower())]
        if len(places) != 1:
            raise ValueError(f"no NLI model: its labels are {sorted(id2label.values())}")
        order.append(places[0])
    return order
