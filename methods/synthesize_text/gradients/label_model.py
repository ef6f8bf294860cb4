"""A causal language model as this method sees it: label words at the end of a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse

from methods.errors import JobError
from methods.inference.loading import load_language_model
from methods.inference.model_registry import ModelDeclaration
from methods.synthesize_text.gradients.factors import DENSE_OUTPUTS, KEPT_OUTPUTS, Factors
from methods.synthesize_text.texts.template import Template
from methods.typing import FloatArray

#: Positions that are computed together, pads included.
_POSITIONS = 4_096
#: Entries of a block of logits.
_LOGITS = 1 << 24
_PROBE_TOLERANCE = 1e-3

Device = Literal["cpu", "gpu"]


@dataclass(frozen=True)
class Encoded:
    """A text in its template, up to the label word.

    Attributes:
        ids: tokens before the word. start, end: the places of the text's own tokens among them.
        words: the first token of each label's word there.
    """

    ids: list[int]
    start: int
    end: int
    words: list[int]


@dataclass
class Scores:
    """What the model says of texts with the word of a label each.

    Attributes:
        factors: gradients of the head. probabilities: (n, labels) of the label words among
            themselves. log_loss: (n,) mean negative log-likelihood of a token; NaN where there is
            none to predict. tokens: (n,) of the text. states: (n, d) mean hidden state of the text.
    """

    factors: Factors
    probabilities: FloatArray
    log_loss: FloatArray
    tokens: FloatArray
    states: FloatArray


def load_label_model(source: ModelDeclaration, device: Device = "cpu") -> LabelModel:
    """Load a model of its own (it may be changed). Raises `JobError`."""
    if device == "gpu" and not torch.cuda.is_available():
        raise JobError("model_unavailable", "device is gpu, and this worker has no GPU.")
    return LabelModel(*load_language_model(source, "cuda" if device == "gpu" else "cpu"))


def load_on_cpu(source: ModelDeclaration) -> LabelModel:
    """A loader for `Models.load`, which names what it keeps by its loader."""
    return load_label_model(source, "cpu")


def load_on_gpu(source: ModelDeclaration) -> LabelModel:
    """See `load_on_cpu`."""
    return load_label_model(source, "gpu")


@dataclass
class LabelModel:
    """Head, embeddings and last hidden states of a causal model.

    Attributes:
        cap: the final soft cap of the logits, infinite for none. scale: what they are multiplied by
            before it.

    Raises:
        JobError: `model_rejected_request` for a model whose logits are not a linear map of its last
            hidden state with such a cap and scale.
    """

    model: Any
    tokenizer: Any
    cap: float = field(init=False)
    scale: float = field(init=False)

    def __post_init__(self) -> None:
        self.model.requires_grad_(False)
        self.device = self.model.device
        config = self.model.config.get_text_config(decoder=True)
        if getattr(self.model.config, "is_encoder_decoder", False):
            raise _rejected("it is an encoder with a decoder")
        head = self.model.get_output_embeddings()
        if head is None or getattr(head, "weight", None) is None:
            raise _rejected("it has no output head")
        self.weight = head.weight.detach().float()
        bias = getattr(head, "bias", None)
        self.bias = None if bias is None else bias.detach().float()
        self.cap = getattr(config, "final_logit_softcapping", None) or math.inf
        self.scale = getattr(config, "logit_scale", None) or 1.0
        self.scale /= getattr(config, "logits_scaling", None) or 1.0
        self.positions = int(getattr(config, "max_position_embeddings", None) or 1 << 20)
        self.outputs, self.width = self.weight.shape
        self._probe()

    @property
    def parameters(self) -> int:
        """Weights of the model."""
        return sum(one.numel() for one in self.model.parameters())

    def _probe(self) -> None:
        """See that our logits are the model's own."""
        ids = torch.arange(4, device=self.device)[None] % self.outputs
        with torch.inference_mode():
            given = self.model(input_ids=ids).logits[0, -1].float()
            ours = self.logits(self.hidden(input_ids=ids)[0, -1:])[0]
        size = float(given.abs().max()) + 1e-6
        if float((given - ours).abs().max()) > _PROBE_TOLERANCE * size + 0.05 * self._is_coarse:
            raise _rejected("its logits are not a linear map of its last hidden state")

    @property
    def _is_coarse(self) -> bool:
        return self.model.dtype != torch.float32

    def hidden(self, **given: Any) -> torch.Tensor:
        """(B, L, d) last hidden states, what the head reads."""
        found = self.model.base_model(**given, use_cache=False).last_hidden_state
        assert isinstance(found, torch.Tensor)
        return found

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits of hidden states, in float32."""
        return self.capped(torch.nn.functional.linear(hidden.float(), self.weight, self.bias))

    def capped(self, raw: torch.Tensor) -> torch.Tensor:
        """Logits from what the head gives."""
        raw = raw if self.scale == 1 else raw * self.scale
        return raw if math.isinf(self.cap) else self.cap * torch.tanh(raw / self.cap)

    def pull(self, hidden: torch.Tensor, word: int | torch.Tensor) -> torch.Tensor:
        """(B, V): a, the gradient of a label's cross-entropy by what the head gives, float32.

        Args:
            hidden: (B, d) at the last position. word: the label's token, of all or of each.
        """
        raw = torch.nn.functional.linear(hidden.float(), self.weight, self.bias)
        capped = self.capped(raw)
        found = torch.softmax(capped, dim=-1)
        found = found - torch.nn.functional.one_hot(
            torch.as_tensor(word, device=found.device).expand(len(found)), self.outputs
        )
        if not math.isinf(self.cap):
            found = found * (1 - (capped / self.cap).square())
        return found if self.scale == 1 else found * self.scale

    @cached_property
    def embeddings(self) -> torch.Tensor:
        """(rows, d) what goes into the model for each token, float32."""
        table = self.model.get_input_embeddings()
        rows = table.weight.shape[0]
        with torch.inference_mode():
            parts = torch.arange(rows, device=self.device).split(1 << 14)
            found = torch.cat([table(part).float() for part in parts])
        return found.clone()

    @cached_property
    def special(self) -> set[int]:
        """Tokens that are no text, and rows of the table that are no token."""
        rows = self.model.get_input_embeddings().weight.shape[0]
        return {*self.tokenizer.all_special_ids, *range(len(self.tokenizer), rows)}

    def encode(
        self, template: Template, texts: Sequence[str], words: Sequence[str]
    ) -> list[Encoded]:
        """Texts in their template: whole strings, cut by the places of characters.

        Raises:
            JobError: `input_invalid` where the words do not differ in their first token or do not
                start at one, or where a text does not fit the model.
        """
        if not len(texts):
            return []
        per_word = [self._encode_with(template, texts, word) for word in words]
        found = []
        for row, versions in enumerate(zip(*per_word, strict=True)):
            if any(other.ids != versions[0].ids for other in versions[1:]):
                raise JobError(
                    "input_invalid",
                    "The label words do not start at a token of their own: in "
                    f"{template.of('...', words[0])!r} the tokens before the word depend on it. "
                    "Put a space before {word}.",
                )
            first = versions[0]
            if len(first.ids) + 1 > self.positions:
                raise JobError(
                    "input_invalid",
                    f"A text with its template has {len(first.ids) + 1} tokens; the model has "
                    f"{self.positions} positions. Lower max_tokens.",
                )
            tokens = [one.words[0] for one in versions]
            if row == 0 and len(set(tokens)) != len(tokens):
                twin = next(k for k, token in enumerate(tokens) if token in tokens[:k])
                raise JobError(
                    "input_invalid",
                    f"The words {words[tokens.index(tokens[twin])]!r} and {words[twin]!r} start "
                    f"with the same token {self.tokenizer.decode([tokens[twin]])!r} in the "
                    "template; take words that differ from their first token on.",
                )
            found.append(Encoded(first.ids, first.start, first.end, tokens))
        return found

    def _encode_with(self, template: Template, texts: Sequence[str], word: str) -> list[Encoded]:
        strings = [template.of(text, word) for text in texts]
        if not getattr(self.tokenizer, "is_fast", False):
            raise _rejected("its tokenizer does not say where in a text its tokens are")
        given = self.tokenizer(strings, return_offsets_mapping=True)
        found = []
        for text, string, ids, places in zip(
            texts, strings, given["input_ids"], given["offset_mapping"], strict=True
        ):
            start, stop = len(template.before), len(template.before) + len(text)
            rest = len(string) - len(word)
            at = next((k for k, (_, end) in enumerate(places) if end > rest), None)
            if at is None:
                raise JobError(
                    "input_invalid", f"The model's tokenizer has no token for the word {word!r}."
                )
            own = [k for k, (a, b) in enumerate(places[:at]) if b > start and a < stop and b > a]
            # A text may have none: the tokenizer knows nothing of it.
            first, last = (own[0], own[-1] + 1) if own else (0, 0)
            found.append(Encoded(ids[:at], first, last, [ids[at]]))
        return found

    def shortened(self, texts: Sequence[str], most: int) -> tuple[list[str], int]:
        """Texts of at most `most` tokens, and how many were cut."""
        found, cut = [], 0
        for start in range(0, len(texts), 512):
            part = list(texts[start : start + 512])
            given = self.tokenizer(part, return_offsets_mapping=True, add_special_tokens=False)
            for text, places in zip(part, given["offset_mapping"], strict=True):
                longer = len(places) > most
                found.append(text[: places[most - 1][1]] if longer else text)
                cut += longer
        return found, cut

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text by itself."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def score(
        self,
        encoded: Sequence[Encoded],
        labels: Sequence[int],
        tell: Callable[[int], None] = lambda done: None,
    ) -> Scores:
        """Read texts, each with the word of its label; see `Scores`.

        Args:
            labels: of each text, a place among the words.
            tell: called with how many are done.
        """
        count = len(encoded)
        parts: list[Any] = [None] * count
        rest = np.zeros(count)
        states, hs = np.zeros((2, count, self.width), dtype=np.float32)
        words = len(encoded[0].words) if count else 0
        probabilities, losses = np.zeros((count, words)), np.full(count, np.nan)

        def read(rows: list[int]) -> None:
            batch = [encoded[row] for row in rows]
            with torch.inference_mode():
                hidden = self.hidden(input_ids=self.padded(batch))
                last = hidden[range(len(batch)), [len(one.ids) - 1 for one in batch]].float()
                own = torch.tensor(
                    [one.words[labels[row]] for one, row in zip(batch, rows, strict=True)],
                    device=self.device,
                )
                pull = self.pull(last, own)
                asked = torch.tensor([one.words for one in batch], device=self.device)
                chances = torch.softmax(self.logits(last).gather(1, asked).double(), dim=1)
                losses[rows] = self._log_losses(hidden, batch)
                for k, one in enumerate(batch):
                    if one.end > one.start:
                        states[rows[k]] = hidden[k, one.start : one.end].float().mean(dim=0).cpu()
            hs[rows], probabilities[rows] = last.cpu(), chances.cpu()
            for k, row in enumerate(rows):
                parts[row], rest[row] = self._kept(pull[k])

        done = 0
        for rows in self._batches([len(one.ids) for one in encoded]):
            for some in self._that_fit(rows, encoded, read):
                done += len(some)
                tell(done)
        return Scores(
            Factors(self._stacked(parts), hs, rest),
            probabilities,
            losses,
            np.array([one.end - one.start for one in encoded], dtype=np.float64),
            states.astype(np.float64),
        )

    def _that_fit(
        self, rows: list[int], encoded: Sequence[Encoded], read: Callable[[list[int]], None]
    ) -> Iterator[list[int]]:
        """Read a batch, in halves and quarters where the memory ends; yields what was read."""
        waiting = [(rows, 0)]
        while waiting:
            some, halved = waiting.pop()
            try:
                read(some)
            except (MemoryError, torch.OutOfMemoryError) as error:
                if halved == 2 or len(some) == 1:
                    raise JobError(
                        "out_of_memory",
                        f"{len(some)} texts of up to {max(len(encoded[k].ids) for k in some)} "
                        "tokens do not fit the memory.",
                    ) from error
                middle = len(some) // 2
                waiting += [(some[middle:], halved + 1), (some[:middle], halved + 1)]
            else:
                yield some

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
        batch: list[int] = []
        for row in order:
            if batch and (len(batch) + 1) * lengths[row] > _POSITIONS:
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def padded(self, batch: Sequence[Encoded]) -> torch.Tensor:
        """(B, L) tokens of a batch: a causal model never sees pads that follow."""
        longest = max(len(one.ids) for one in batch)
        rows = [one.ids + [0] * (longest - len(one.ids)) for one in batch]
        return torch.tensor(rows, device=self.device)

    def _log_losses(self, hidden: torch.Tensor, batch: Sequence[Encoded]) -> FloatArray:
        """Mean negative log-likelihood of the tokens of each text that something precedes."""
        places = [
            (k, at) for k, one in enumerate(batch) for at in range(max(1, one.start), one.end)
        ]
        losses = []
        step = max(1, _LOGITS // self.outputs)
        for start in range(0, len(places), step):
            rows, at = zip(*places[start : start + step], strict=True)
            logits = self.logits(hidden[list(rows), [k - 1 for k in at]])
            tokens = [batch[k].ids[place] for k, place in zip(rows, at, strict=True)]
            wanted = torch.tensor(tokens, device=self.device)
            losses.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none").cpu())
        found = np.full(len(batch), np.nan)
        if places:
            owner = np.array([k for k, _ in places])
            sums = np.bincount(owner, torch.cat(losses).double().numpy(), len(batch))
            counts = np.bincount(owner, minlength=len(batch))
            np.divide(sums, counts, out=found, where=counts > 0)
        return found

    def _kept(self, pull: torch.Tensor) -> tuple[Any, float]:
        if self.outputs <= DENSE_OUTPUTS:
            return pull.cpu().numpy(), 0.0
        values, places = pull.abs().topk(KEPT_OUTPUTS)
        left = pull.double().square().sum() - values.double().square().sum()
        places, _ = places.sort()
        shape = (1, self.outputs)
        row = sparse.csr_matrix(
            (pull[places].cpu().numpy(), places.cpu().numpy(), [0, KEPT_OUTPUTS]), shape=shape
        )
        return row, max(0.0, float(left))

    def _stacked(self, parts: list[Any]) -> Any:
        if self.outputs <= DENSE_OUTPUTS:
            return np.array(parts, dtype=np.float32).reshape(-1, self.outputs)
        if not parts:
            return sparse.csr_matrix((0, self.outputs), dtype=np.float32)
        return sparse.csr_matrix(sparse.vstack(parts))


def _rejected(why: str) -> JobError:
    return JobError("model_rejected_request", f"The model does not serve here: {why}.")
