"""What models say of the answers: NLI and embeddings, asked once and shared by all scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from methods.score_hallucination.nli import ENTAILMENT
from methods.score_hallucination.text import sentences

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Check = Callable[[], None]


@dataclass(frozen=True)
class Relations:
    """Of the k compared answers of one item: its n samples, and after them the judged answer.

    Attributes:
        nli: (k, k, 3) contradiction, neutral, entailment; row i is the premise, column j the
            hypothesis; equal answers entail each other.
        sentences: (s, n, 3) the sentences of the judged answer as premises, samples as hypotheses.
        embeddings: (k, d) unit vectors.
    """

    nli: Floats | None = None
    sentences: Floats | None = None
    embeddings: Floats | None = None


class Relate(Protocol):
    """Asks a model about the answers of many items at once."""

    def __call__(
        self,
        prompts: Sequence[str],
        distinct: Sequence[Sequence[str]],
        positions: Sequence[Ints],
        judged: Sequence[str | None],
        check: Check,
    ) -> list[Relations]:
        """One `Relations` an item.

        Args:
            prompts: of the items. distinct, positions: of `unique_answers` over the compared
                answers. judged: the answers whose sentences are wanted, None where they are not.
        """


class PairEngine(Protocol):
    """An NLI model: (P, 3) probabilities of (premise, hypothesis) pairs."""

    def probabilities(self, pairs: Sequence[tuple[str, str]], check: Check) -> Floats: ...


@dataclass(frozen=True)
class RelateByNLI:
    """Asks an NLI model about every ordered pair of different answers.

    condition_on_prompt: each text is preceded by the prompt, as in the semantic-entropy papers;
    other clusters and scores come of it.
    """

    engine: PairEngine
    condition_on_prompt: bool = False

    def __call__(
        self,
        prompts: Sequence[str],
        distinct: Sequence[Sequence[str]],
        positions: Sequence[Ints],
        judged: Sequence[str | None],
        check: Check,
    ) -> list[Relations]:
        """See `Relate`."""
        pairs: list[tuple[str, str]] = []
        parts: list[list[str]] = []
        for prompt, texts, answer in zip(prompts, distinct, judged, strict=True):
            framed = [self._framed(prompt, text) for text in texts]
            pairs += [(a, b) for a in framed for b in framed if a is not b]
            parts.append([] if answer is None else sentences(answer))
            pairs += [(sentence, text) for sentence in parts[-1] for text in texts]
        found = self.engine.probabilities(pairs, check)
        relations, start = [], 0
        for texts, where, split in zip(distinct, positions, parts, strict=True):
            m = len(texts)
            small = np.zeros((m, m, 3))
            small[..., ENTAILMENT] = 1.0
            end = start + m * (m - 1)
            small[~np.eye(m, dtype=bool)] = found[start:end]
            start, end = end, end + len(split) * m
            own = found[start:end].reshape(len(split), m, 3)
            start = end
            relations.append(
                Relations(
                    nli=small[where[:, None], where[None, :]],
                    sentences=own[:, where] if split else None,
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
    """Asks an embedding model about every different answer."""

    engine: VectorEngine

    def __call__(
        self,
        prompts: Sequence[str],
        distinct: Sequence[Sequence[str]],
        positions: Sequence[Ints],
        judged: Sequence[str | None],
        check: Check,
    ) -> list[Relations]:
        """See `Relate`."""
        flat = [text for texts in distinct for text in texts]
        vectors = self.engine.embed(flat, check)
        starts = np.cumsum([0, *map(len, distinct)])
        return [
            Relations(embeddings=vectors[start + where])
            for start, where in zip(starts[:-1], positions, strict=True)
        ]
