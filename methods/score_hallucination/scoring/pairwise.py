"""What models say of the answers: NLI and embeddings, asked once and shared by all scorers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from methods.inference.nli_cache import Memory
from methods.score_hallucination.similarity.engines import Check, PairEngine, VectorEngine
from methods.score_hallucination.similarity.equivalence import Rule
from methods.score_hallucination.similarity.nli import ENTAILMENT
from methods.score_hallucination.similarity.nli_pairs import TextPair, pairs_read
from methods.score_hallucination.similarity.sentences import sentences
from methods.score_hallucination.similarity.token_relevance import Tokens, token_similarities
from methods.typing import BoolArray, FloatArray, IntArray

#: No model reads so little at once.
_SHORT = 64


@dataclass(frozen=True)
class Clustered:
    """What is wanted of an item where not every pair is.

    rule, retake: of its clusters, see `asking.pairs_read`. judged: whether the judged answer is
    compared with the samples.
    """

    rule: Rule
    retake: bool
    judged: bool


@dataclass(frozen=True)
class Compared:
    """The k answers of an item that are compared: samples, then the judged one, then a verifier's.

    Attributes:
        texts: the different ones, in order of their first place. where: (k,) which of `texts` each
            one is.
        n: samples. judged: place of the judged answer, if it is compared. verifier: place of the
            verifier's first answer; k without one.
        prompt: what was asked. split: the answer whose sentences are wanted. units: parts of the
            judged answer, each wanted as a hypothesis of the samples. context: passages, wanted as
            premises of the sentences of the answer `grounded`. tokens: those of the
            samples and then of the judged answer, None where they are not wanted.
        only: what is wanted of an NLI model; None: every pair.
    """

    texts: Sequence[str]
    where: IntArray
    n: int
    judged: int | None
    verifier: int
    prompt: str = ""
    split: str | None = None
    units: Sequence[str] = ()
    context: Sequence[str] = ()
    grounded: str | None = None
    tokens: Sequence[Tokens | None] = ()
    only: Clustered | None = None

    @property
    def n_distinct(self) -> int:
        """Different samples: the first of `texts`."""
        return int(self.where[: self.n].max()) + 1

    def wanted(self) -> BoolArray:
        """(m, m) pairs of `texts` to ask about first: not a text with itself.

        Nor two of a verifier's. Where clusters are wanted, what they read follows.
        """
        m = len(self.texts)
        if self.only is not None:
            mask = np.zeros((m, m), dtype=bool)
            if self.only.judged and self.judged is not None:
                place = self.where[self.judged]
                mask[place, : self.n_distinct] = mask[: self.n_distinct, place] = True
                mask[place, place] = False
            return mask
        foreign = np.arange(m) > self.where[: self.verifier].max()
        return ~np.eye(m, dtype=bool) & ~(foreign[:, None] & foreign)


@dataclass(frozen=True)
class Relations:
    """What a model says of the compared answers of one item.

    Attributes:
        nli: (k, k, 3) contradiction, neutral, entailment; row i is the premise, column j the
            hypothesis; equal answers entail each other; NaN where not asked.
        sentences: (s, n, 3) the sentences of the judged answer as premises, samples as hypotheses.
        units: (u, n, 3) samples as premises, the units as hypotheses. grounds: (s, c, 3) passages
            as premises, the sentences of the judged answer as hypotheses.
        embeddings: (k, d) unit vectors.
        tokens: for each entry of `Compared.tokens` (T,) how alike the answer is without each.
        windowed: different texts that the model reads in windows. prompt_cut: whether the prompt
            before them is cut.
    """

    nli: FloatArray | None = None
    sentences: FloatArray | None = None
    units: FloatArray | None = None
    grounds: FloatArray | None = None
    embeddings: FloatArray | None = None
    tokens: Sequence[FloatArray | None] = ()
    windowed: int = 0
    prompt_cut: bool = False


#: Asks a model about the answers of many items at once; one `Relations` an item.
Relate = Callable[[Sequence[Compared], Check], list[Relations]]


@dataclass(frozen=True)
class RelateByNLI:
    """Asks an NLI model about ordered pairs of different answers: all, or those that are read.

    condition_on_prompt: each text is preceded by the prompt, as in the semantic-entropy papers;
    other clusters and scores come of it. memory: what earlier jobs asked.
    """

    engine: PairEngine
    condition_on_prompt: bool = False
    memory: Memory | None = None

    def __call__(self, items: Sequence[Compared], check: Check) -> list[Relations]:
        """See `Relate`."""
        verdicts = [_of_equals(len(item.texts)) for item in items]
        first = {k: _places(item.wanted()) for k, item in enumerate(items)}
        parts = [sentences(item.split or "") for item in items]
        split = [
            (sentence, text)
            for item, part in zip(items, parts, strict=True)
            for sentence in part
            for text in item.texts[: item.n_distinct]
        ]
        units = [
            (text, unit)
            for item in items
            for unit in item.units
            for text in item.texts[: item.n_distinct]
        ]
        grounds = [
            (passage, sentence)
            for item in items
            for sentence in sentences(item.grounded or "")
            for passage in item.context
        ]
        own = self._ask(items, verdicts, first, [*split, *units, *grounds], check)
        by_unit = iter(own[len(split) : len(split) + len(units)])
        by_ground = iter(own[len(split) + len(units) :])
        self._follow(items, verdicts, check)
        relations, start = [], 0
        for item, small, part in zip(items, verdicts, parts, strict=True):
            where, end = item.where, start + len(part) * item.n_distinct
            judged = own[start:end].reshape(len(part), item.n_distinct, 3)
            start = end
            relations.append(
                Relations(
                    nli=small[where[:, None], where[None, :]],
                    sentences=judged[:, where[: item.n]] if part else None,
                    units=_grid(by_unit, len(item.units), item.n_distinct, where[: item.n]),
                    grounds=_grid(
                        by_ground, len(sentences(item.grounded or "")), len(item.context)
                    ),
                    windowed=self._long(item),
                    prompt_cut=self._is_cut(item),
                )
            )
        return relations

    def _follow(
        self, items: Sequence[Compared], verdicts: Sequence[FloatArray], check: Check
    ) -> None:
        """Ask what the clusters read, a round of all items at once: its batches are full."""
        readers = {
            k: pairs_read(item.where[: item.n].tolist(), item.only.retake, item.only.rule, known)
            for k, (item, known) in enumerate(zip(items, verdicts, strict=True))
            if item.only is not None
        }
        while wanted := {k: pairs for k, reader in readers.items() if (pairs := next(reader, []))}:
            self._ask(items, verdicts, wanted, [], check)

    def _ask(
        self,
        items: Sequence[Compared],
        verdicts: Sequence[FloatArray],
        wanted: Mapping[int, list[TextPair]],
        more: list[tuple[str, str]],
        check: Check,
    ) -> FloatArray:
        """Fill in the wanted pairs of items, by their number; returns (P, 3) of further ones."""
        texts = [
            self._framed(items[k].prompt, (items[k].texts[a], items[k].texts[b]))
            for k, pairs in wanted.items()
            for a, b in pairs
        ]
        found, start = self.engine.probabilities(texts + more, check, self.memory), 0
        for k, pairs in wanted.items():
            if pairs:
                verdicts[k][tuple(zip(*pairs, strict=True))] = found[start : start + len(pairs)]
            start += len(pairs)
        return found[start:]

    def _framed(self, prompt: str, pair: tuple[str, str]) -> tuple[str, str]:
        """The pair with as much of the prompt's end as leaves the answers whole."""
        if not self.condition_on_prompt or not prompt:
            return pair
        frame = self.engine.shortened(prompt, pair)
        return (f"{frame} {pair[0]}", f"{frame} {pair[1]}") if frame else pair

    def _long(self, item: Compared) -> int:
        """Texts that are read in windows: beside the longest other one."""
        longest = max(item.texts, key=len, default="")
        return sum(self.engine.is_long(text, longest) for text in item.texts if len(text) > _SHORT)

    def _is_cut(self, item: Compared) -> bool:
        if not self.condition_on_prompt or not item.prompt:
            return False
        longest = max(item.texts, key=len, default="")
        return self.engine.shortened(item.prompt, (longest, longest)) != item.prompt


def _grid(
    rows: Iterator[FloatArray], height: int, width: int, where: IntArray | None = None
) -> FloatArray | None:
    """(height, width, 3) of the next rows; None of none. where: which column each one wanted is."""
    taken = [next(rows) for _ in range(height * width)]
    if not taken:
        return None
    found = np.array(taken).reshape(height, width, 3)
    return found if where is None else found[:, where]


def _of_equals(m: int) -> FloatArray:
    """(m, m, 3): a text entails itself; the others are not known."""
    verdicts = np.full((m, m, 3), np.nan)
    diagonal = np.arange(m)
    verdicts[diagonal, diagonal] = 0.0
    verdicts[diagonal, diagonal, ENTAILMENT] = 1.0
    return verdicts


def _places(mask: BoolArray) -> list[TextPair]:
    return [(a, b) for a, b in np.argwhere(mask).tolist()]


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
                windowed=sum(self.engine.is_long(text) for text in item.texts),
            )
            for start, item in zip(starts[:-1], items, strict=True)
        ]
