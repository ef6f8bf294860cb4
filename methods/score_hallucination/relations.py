"""What models say of the answers: NLI and embeddings, asked once and shared by all scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from methods.inference.memory import Memory, NLICost
from methods.score_hallucination.nli import ENTAILMENT
from methods.score_hallucination.text import sentences
from methods.score_hallucination.token_similarity import Tokens, token_similarities

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Check = Callable[[], None]


@dataclass(frozen=True)
class Compared:
    """The k answers of an item that are compared: samples, then the judged one, then a verifier's.

    Attributes:
        texts: the different ones, in order of their first place. where: (k,) which of `texts` each
            one is.
        n: samples. judged: place of the judged answer, if it is compared. verifier: place of the
            verifier's first answer; k without one.
        prompt: what was asked. split: the answer whose sentences are wanted. tokens: those of the
            samples and then of the judged answer, None where they are not wanted.
    """

    texts: Sequence[str]
    where: Ints
    n: int
    judged: int | None
    verifier: int
    prompt: str = ""
    split: str | None = None
    tokens: Sequence[Tokens | None] = ()

    @property
    def n_distinct(self) -> int:
        """Different samples: the first of `texts`."""
        return int(self.where[: self.n].max()) + 1

    def wanted(self) -> Flags:
        """(m, m) pairs of `texts` to ask about: not a text with itself, nor two of a verifier's."""
        m = len(self.texts)
        foreign = np.arange(m) > self.where[: self.verifier].max()
        return ~np.eye(m, dtype=bool) & ~(foreign[:, None] & foreign)


@dataclass(frozen=True)
class Relations:
    """What a model says of the compared answers of one item.

    Attributes:
        nli: (k, k, 3) contradiction, neutral, entailment; row i is the premise, column j the
            hypothesis; equal answers entail each other; NaN between two of a verifier's.
        sentences: (s, n, 3) the sentences of the judged answer as premises, samples as hypotheses.
        embeddings: (k, d) unit vectors.
        tokens: for each entry of `Compared.tokens` (T,) how alike the answer is without each.
    """

    nli: Floats | None = None
    sentences: Floats | None = None
    embeddings: Floats | None = None
    tokens: Sequence[Floats | None] = ()


#: Asks a model about the answers of many items at once; one `Relations` an item.
Relate = Callable[[Sequence[Compared], Check], list[Relations]]


class PairEngine(Protocol):
    """An NLI model: (P, 3) probabilities of (premise, hypothesis) pairs."""

    cost: NLICost

    def probabilities(
        self, pairs: Sequence[tuple[str, str]], check: Check, memory: Memory | None
    ) -> Floats: ...


@dataclass(frozen=True)
class RelateByNLI:
    """Asks an NLI model about every ordered pair of different answers.

    condition_on_prompt: each text is preceded by the prompt, as in the semantic-entropy papers;
    other clusters and scores come of it. memory: what earlier jobs asked.
    """

    engine: PairEngine
    condition_on_prompt: bool = False
    memory: Memory | None = None

    def __call__(self, items: Sequence[Compared], check: Check) -> list[Relations]:
        """See `Relate`."""
        pairs: list[tuple[str, str]] = []
        parts = [sentences(item.split or "") for item in items]
        masks = [item.wanted() for item in items]
        for item, mask, split in zip(items, masks, parts, strict=True):
            framed = [self._framed(item.prompt, text) for text in item.texts]
            pairs += [(framed[a], framed[b]) for a, b in np.argwhere(mask).tolist()]
            samples = item.texts[: item.n_distinct]
            pairs += [(sentence, text) for sentence in split for text in samples]
        found, start = self.engine.probabilities(pairs, check, self.memory), 0
        relations = []
        for item, mask, split in zip(items, masks, parts, strict=True):
            small = np.full((*mask.shape, 3), np.nan)
            small[np.eye(len(mask), dtype=bool)] = 0.0
            small[np.eye(len(mask), dtype=bool), ENTAILMENT] = 1.0
            end = start + int(mask.sum())
            small[mask] = found[start:end]
            start, end = end, end + len(split) * item.n_distinct
            own = found[start:end].reshape(len(split), item.n_distinct, 3)
            start = end
            where = item.where
            relations.append(
                Relations(
                    nli=small[where[:, None], where[None, :]],
                    sentences=own[:, where[: item.n]] if split else None,
                )
            )
        return relations

    def _framed(self, prompt: str, text: str) -> str:
        return f"{prompt} {text}" if self.condition_on_prompt and prompt else text


class VectorEngine(Protocol):
    """An embedding model: (N, d) unit vectors of texts."""

    def embed(self, texts: Sequence[str], check: Check) -> Floats: ...


@dataclass(frozen=True)
class RelateByEmbedding:
    """Asks an embedding model about every different answer, and what tokens mean for it."""

    engine: VectorEngine

    def __call__(self, items: Sequence[Compared], check: Check) -> list[Relations]:
        """See `Relate`."""
        vectors = self.engine.embed([text for item in items for text in item.texts], check)
        starts = np.cumsum([0, *(len(item.texts) for item in items)])
        wanted = [tokens for item in items for tokens in item.tokens if tokens is not None]
        alike = token_similarities(wanted, self.engine, check) if wanted else {}
        return [
            Relations(
                embeddings=vectors[start + item.where],
                tokens=[None if tokens is None else alike[tokens] for tokens in item.tokens],
            )
            for start, item in zip(starts[:-1], items, strict=True)
        ]
