"""Items with equally many answers, as the scorers see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from methods.score_hallucination.scorers import whitebox
from methods.score_hallucination.scoring.pairwise import Relate
from methods.score_hallucination.similarity import equivalence, nli
from methods.score_hallucination.similarity.identity import Identity
from methods.score_hallucination.similarity.tokenize import Tokenizer
from methods.typing import FloatArray, IntArray

#: What stands for every refusal: they are one answer, whatever they say.
REFUSAL = "[refused]"


@dataclass(frozen=True)
class JudgedAnswer:
    """The answer that is judged, with what is known of its tokens.

    logprobs: log-probabilities of its tokens. top_logprobs: for every token those of the likeliest
    alternatives, itself included. tokens: what each of them adds to the text. unknown: whether
    log-probabilities were given of which some say nothing.
    """

    text: str
    logprobs: Sequence[float] | None = None
    top_logprobs: Sequence[Sequence[float]] | None = None
    tokens: Sequence[str] | None = None
    unknown: bool = False


@dataclass(frozen=True)
class Options:
    """How to score; the fields are those of the spec.

    relate: asks the model that the kinds `nli`, `hybrid` and `embedding` need. rule: which NLI
    verdicts make two answers equivalent; None: threshold or equality. weights: of the `ensemble`;
    None: all other scorers alike. all_pairs: the similarity of every pair is wanted, even where no
    scorer reads it.
    """

    scorers: tuple[str, ...] = ("snne",)
    kind: str = "rouge_l"
    tokenizer: Tokenizer = "unicode"
    identity: Identity | None = None
    symmetrize: str = "none"
    variant: nli.Variant = "strict"
    relate: Relate | None = None
    rule: equivalence.Rule | None = None
    algorithm: str = "greedy"
    threshold: float | None = None
    tau: float = 1.0
    include_self: bool = True
    all_pairs: bool = False
    weights: Mapping[str, float] | None = None

    @property
    def level(self) -> Identity:
        """Which answers are one answer; the tokenizer of the papers goes with their equality."""
        return self.identity or ("paper" if self.tokenizer == "paper" else "surface")


@dataclass(frozen=True)
class Answers:
    """The sampled answers of one item.

    logprobs: for each answer the log-probabilities of its tokens, or None where they are missing.
    matrix: the precomputed similarity, if the item brought one. judged: the answer in question,
    which some scorers compare with the samples. prompt: what was asked. verifier: another model's
    answers, and cross: (n, k) the precomputed similarity to them. tokens: for each answer what its
    tokens add to the text, or None. opinions: what judges say of the judged answer, by scorer: a
    number in [0, 1], or why there is none. unknown: of which answers log-probabilities were given
    that say nothing. unanswered: why there is no answer at all. units: parts of the judged answer.
    context: passages that it should rest on. bare: samples without the context.
    """

    texts: Sequence[str]
    logprobs: Sequence[Sequence[float] | None] = ()
    matrix: Sequence[Sequence[float]] | None = None
    judged: JudgedAnswer | None = None
    prompt: str = ""
    verifier: Sequence[str] = ()
    cross: Sequence[Sequence[float]] | None = None
    tokens: Sequence[Sequence[str] | None] = ()
    opinions: Mapping[str, float | str] = field(default_factory=dict)
    unknown: Sequence[bool] = ()
    unanswered: str | None = None
    units: Sequence[str] = ()
    context: Sequence[str] = ()
    bare: Sequence[str] = ()


@dataclass(frozen=True)
class Judged:
    """The answers that are judged, one of every item of a batch.

    answers: None where an item has none. equal: (B, n) samples that are the same answer.
    to_samples: (B, n) its similarity to the samples, NaN where unknown. nli: (B, 2, n, 3) NLI
    probabilities with it as premise and as hypothesis, NaN where unknown. sentences: for each item
    (s, n, 3) those of its sentences as premises. units: (u, n, 3) those of its parts as hypotheses
    of the samples. grounds: (s, c, 3) those of its sentences as hypotheses of the c passages of the
    context. token_sar: (B,) of its tokens, NaN where unknown.
    """

    answers: Sequence[JudgedAnswer | None]
    equal: npt.NDArray[np.bool_]
    to_samples: FloatArray
    nli: FloatArray
    sentences: Sequence[FloatArray | None]
    units: Sequence[FloatArray | None]
    grounds: Sequence[FloatArray | None]
    token_sar: FloatArray

    @cached_property
    def alike(self) -> FloatArray:
        """(B, n) `to_samples` in [0, 1]: a negative cosine counts as nothing in common."""
        return np.clip(self.to_samples, 0.0, 1.0)

    @cached_property
    def logprobs(self) -> FloatArray:
        """(B, T) log-probabilities of the tokens, NaN where unknown."""
        return whitebox.pad([answer.logprobs if answer else None for answer in self.answers])

    @cached_property
    def entropy(self) -> FloatArray:
        """(B, T) entropy of the token distributions, NaN where unknown."""
        return whitebox.pad([self._of_top(a, whitebox.token_entropy) for a in self.answers])

    @cached_property
    def margin(self) -> FloatArray:
        """(B, T) margin between the two likeliest tokens, NaN where unknown."""
        return whitebox.pad([self._of_top(a, whitebox.token_margin) for a in self.answers])

    @staticmethod
    def _of_top(
        answer: JudgedAnswer | None, function: Callable[[FloatArray], FloatArray]
    ) -> FloatArray | None:
        # One answer at a time: a batch padded to (B, T, K) would be large for one long answer.
        top = answer.top_logprobs if answer else None
        if not top or min(map(len, top)) < 2:
            return None
        return function(whitebox.pad(top))

    def covered(self, row: int) -> float | None:
        """Share of probability that the known alternatives cover, mean over the tokens."""
        answer = self.answers[row]
        top = answer.top_logprobs if answer else None
        if not top or not all(top):
            return None
        return float(np.clip(np.nansum(np.exp(whitebox.pad(top)), axis=-1), 0, 1).mean())


@dataclass(frozen=True)
class Batch:
    """Items with the same n: similarity (B, n, n), rouge_l likewise, ids and positions (B, n).

    logprob: (B, n) log-probability of the answers as a whole, tokens: (B, n) how many tokens that
    were; NaN and 0 where unknown. positions: which of the item's different answers each one is.
    cross: for each item (n, k) similarity to the k answers of a verifier, None without them.
    nli: (B, n, n, 3) and embeddings: (B, n, d), None without such a model. token_sar: (B, n) of the
    answers' tokens, NaN where unknown. opinions: of each item, see `Answers`. bare: (B,) confidence
    of SNNE over the samples without the context, NaN without them. weights: of the
    scorers in the ensemble, and confidences: (B,) of those that were computed, NaN where undefined.
    """

    n: int
    tau: float
    include_self: bool
    tokenizer: Tokenizer
    texts: Sequence[Sequence[str]]
    similarity: FloatArray
    rouge_l: FloatArray
    logprob: FloatArray
    tokens: IntArray
    ids: IntArray
    positions: IntArray
    judged: Judged
    cross: Sequence[FloatArray | None]
    token_sar: FloatArray
    opinions: Sequence[Mapping[str, float | str]]
    unknown: Sequence[Sequence[bool]] = ()
    bare: FloatArray = field(default_factory=lambda: np.empty(0))
    nli: FloatArray | None = None
    embeddings: FloatArray | None = None
    weights: Mapping[str, float] | None = None
    confidences: dict[str, FloatArray] = field(default_factory=dict)

    @cached_property
    def alike(self) -> FloatArray:
        """(B, n, n) `similarity` in [0, 1], for scorers with weights or distances."""
        return np.clip(self.similarity, 0.0, 1.0)

    @cached_property
    def loglik(self) -> FloatArray:
        """(B, n) mean log-probability of the answers' tokens."""
        return self.logprob / np.maximum(self.tokens, 1)

    def opinion(self, scorer: str) -> FloatArray:
        """(B,) what judges say for a scorer, NaN where there is none."""
        found = [opinions.get(scorer) for opinions in self.opinions]
        return np.array([value if isinstance(value, float) else np.nan for value in found])
