"""Scores of many items at once: one similarity matrix and one clustering, shared by all scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from methods.score_hallucination import clustering, scorers, similarity
from methods.score_hallucination.similarity import Ints, Matrix
from methods.score_hallucination.text import Tokenizer

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """How to score; the fields are those of the spec."""

    scorers: tuple[str, ...] = ("snne",)
    kind: str = "rouge_l"
    tokenizer: Tokenizer = "unicode"
    symmetrize: str = "none"
    algorithm: str = "greedy"
    threshold: float | None = None
    tau: float = 1.0
    include_self: bool = True


@dataclass(frozen=True)
class Answers:
    """The sampled answers of one item.

    logprobs: for each answer the log-probabilities of its tokens, or None where they are missing.
    matrix: the precomputed similarity, if the item brought one.
    """

    texts: Sequence[str]
    logprobs: Sequence[Sequence[float] | None] = ()
    matrix: Sequence[Sequence[float]] | None = None


@dataclass
class ItemScores:
    """What the scorers say of one item; `values` and `confidences` hold defined scores only."""

    n: int
    n_unique: int
    cluster_ids: Ints
    representatives: Ints
    values: dict[str, float] = field(default_factory=dict)
    confidences: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Batch:
    """Items with the same n: similarity (B, n, n), rouge_l likewise, loglik (B, n), ids (B, n)."""

    n: int
    options: Options
    similarity: Matrix
    rouge_l: Matrix
    loglik: Floats
    ids: Ints


@dataclass(frozen=True)
class Scorer:
    """A row of the table of scorers.

    needs: `similarity`, `clusters`, `logprobs` or `texts`. at_least: smallest number of answers.
    """

    at_least: int
    needs: frozenset[str]
    value: Callable[[_Batch], Floats]
    confidence: Callable[[_Batch, Floats], Floats]


def _snne_confidence(batch: _Batch, value: Floats) -> Floats:
    """(U_max - U) / (U_max - U_min) by the bounds of n answers; NaN where they do not apply."""
    s = batch.similarity
    floor = s.min(axis=(1, 2))
    diagonal = np.diagonal(s, axis1=1, axis2=2)
    bounded = (floor >= -1) & (s.max(axis=(1, 2)) <= 1) & (np.abs(diagonal - 1) < 1e-9).all(axis=1)
    low, high = scorers.snne_bounds(
        batch.n, batch.options.tau, np.where(floor < 0, -1.0, 0.0), batch.options.include_self
    )
    return np.where(bounded, np.clip((high - value) / (high - low), 0, 1), np.nan)


def _entropy_confidence(batch: _Batch, value: Floats) -> Floats:
    return np.clip(1 - value / np.log(batch.n), 0, 1)


def _snne(batch: _Batch) -> Floats:
    return scorers.snne(batch.similarity, batch.options.tau, batch.options.include_self)


def _wsnne(batch: _Batch) -> Floats:
    return scorers.wsnne(
        batch.similarity, batch.loglik, batch.options.tau, batch.options.include_self
    )


SCORERS: dict[str, Scorer] = {
    "snne": Scorer(2, frozenset({"similarity"}), _snne, _snne_confidence),
    "wsnne": Scorer(2, frozenset({"similarity", "logprobs"}), _wsnne, _snne_confidence),
    "semantic_entropy": Scorer(
        2,
        frozenset({"clusters", "logprobs"}),
        lambda b: scorers.semantic_entropy(b.loglik, b.ids),
        _entropy_confidence,
    ),
    "discrete_semantic_entropy": Scorer(
        2,
        frozenset({"clusters"}),
        lambda b: scorers.discrete_semantic_entropy(b.ids),
        _entropy_confidence,
    ),
    "predictive_entropy": Scorer(
        1,
        frozenset({"logprobs"}),
        lambda b: scorers.predictive_entropy(b.loglik),
        lambda b, value: np.exp(-np.maximum(value, 0)),
    ),
    "num_semantic_sets": Scorer(
        2,
        frozenset({"clusters"}),
        lambda b: scorers.num_semantic_sets(b.ids),
        lambda b, value: (b.n - value) / (b.n - 1),
    ),
    "lexical_similarity": Scorer(
        2,
        frozenset({"texts"}),
        lambda b: scorers.lexical_similarity(b.rouge_l),
        lambda b, value: np.clip(-value, 0, 1),
    ),
}


def score(items: Sequence[Answers], options: Options) -> list[ItemScores]:
    """Score items, in order.

    A score that cannot be computed for an item has a reason in place of a value: too few answers,
    no log-probabilities, nothing but empty answers. It never becomes 0.

    Raises:
        ValueError: kind `precomputed` and an item without a matrix.
    """
    texts = [item.texts for item in items]
    distinct, positions = similarity.unique_answers(texts, options.tokenizer)
    matrices, lexical = _matrices(items, options, distinct, positions)
    results: list[ItemScores | None] = [None] * len(items)
    sizes = np.array([len(t) for t in texts])
    for n in np.unique(sizes):
        chosen = np.flatnonzero(sizes == n).tolist()
        batch, representatives = _batch(
            [items[i] for i in chosen],
            np.stack([matrices[i] for i in chosen]),
            np.stack([lexical[i] for i in chosen]) if lexical else np.empty(0),
            np.stack([positions[i] for i in chosen]),
            options,
        )
        scored = [
            ItemScores(int(n), len(distinct[i]), batch.ids[row], representatives[row])
            for row, i in enumerate(chosen)
        ]
        empty = np.array([not any(t.strip() for t in texts[i]) for i in chosen])
        for name in options.scorers:
            _apply(name, batch, scored, empty)
        for i, result in zip(chosen, scored, strict=True):
            results[i] = result
    return [result for result in results if result is not None]


def _matrices(
    items: Sequence[Answers],
    options: Options,
    distinct: list[list[str]],
    positions: list[Ints],
) -> tuple[list[Matrix], list[Matrix]]:
    """The similarity of the spec, and ROUGE-L where a scorer needs the texts themselves."""
    wanted = any("texts" in SCORERS[name].needs for name in options.scorers)
    lexical: list[Matrix] = []
    if options.kind == "rouge_l" or wanted:
        lexical = similarity.rouge_l(distinct, positions, options.tokenizer)
    if options.kind == "rouge_l":
        return lexical, lexical
    if options.kind == "exact":
        return similarity.exact(positions), lexical
    given = []
    for index, item in enumerate(items):
        if item.matrix is None:
            raise ValueError(f"item {index} has no precomputed similarity")
        matrix = np.asarray(item.matrix, dtype=np.float64)
        given.append(similarity.symmetrize(matrix, options.symmetrize))
    return given, lexical


def _batch(
    items: list[Answers], matrices: Matrix, lexical: Matrix, positions: Ints, options: Options
) -> tuple[_Batch, Ints]:
    n = matrices.shape[-1]
    if options.threshold is None:
        equivalent = positions[:, :, None] == positions[:, None, :]
    else:
        equivalent = matrices >= options.threshold
    cluster = clustering.greedy if options.algorithm == "greedy" else clustering.components
    ids = cluster(equivalent)
    loglik = np.array(
        [
            [_mean(item.logprobs[i] if i < len(item.logprobs) else None) for i in range(n)]
            for item in items
        ]
    )
    batch = _Batch(n, options, matrices, lexical, loglik, ids)
    return batch, _representatives(matrices, ids)


def _mean(token_logprobs: Sequence[float] | None) -> float:
    return sum(token_logprobs) / len(token_logprobs) if token_logprobs else float("nan")


def _representatives(matrices: Matrix, ids: Ints) -> Ints:
    """(B, n): for each cluster its medoid, the member closest to the others (first of ties)."""
    member = clustering.membership(ids) > 0
    same = ids[:, :, None] == ids[:, None, :]
    closeness = np.where(same, matrices, 0.0).sum(axis=2)
    return np.where(member, closeness[:, None, :], -np.inf).argmax(axis=2)


def _apply(
    name: str, batch: _Batch, scored: list[ItemScores], empty: npt.NDArray[np.bool_]
) -> None:
    scorer = SCORERS[name]
    defined = np.ones(len(scored), dtype=bool)
    if batch.n < scorer.at_least:
        reason = f"needs at least {scorer.at_least} answers, got {batch.n}"
        for item in scored:
            item.reasons[name] = reason
        return
    if "logprobs" in scorer.needs:
        missing = np.isnan(batch.loglik)
        for row in np.flatnonzero(missing.any(axis=1)):
            first = int(np.argmax(missing[row]))
            scored[row].reasons[name] = f"responses/{first} has no token_logprobs"
        defined &= ~missing.any(axis=1)
    if scorer.at_least > 1:
        # Samples that all say nothing agree, but not because the model knows.
        for row in np.flatnonzero(empty & defined):
            scored[row].reasons[name] = "all answers are empty"
        defined &= ~empty
    value = scorer.value(batch)
    confidence = scorer.confidence(batch, value)
    for row in np.flatnonzero(defined):
        scored[row].values[name] = float(value[row])
        if np.isfinite(confidence[row]):
            scored[row].confidences[name] = float(confidence[row])
