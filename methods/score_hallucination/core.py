"""Scores of many items at once: one similarity matrix and one clustering, shared by all scorers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from methods.score_hallucination import clustering, equivalence, lexical, nli, similarity
from methods.score_hallucination.catalogue import SCORERS, Batch, Judged, Judgement, Scorer
from methods.score_hallucination.relations import Relate, Relations
from methods.score_hallucination.similarity import Ints, Matrix, symmetrize
from methods.score_hallucination.text import TOKENIZERS, Tokenizer

__all__ = ["SCORERS", "Answers", "ItemScores", "Judgement", "Options", "Scorer", "score"]


@dataclass(frozen=True)
class Options:
    """How to score; the fields are those of the spec.

    relate: asks the model that the kinds `nli`, `hybrid` and `embedding` need. rule: which NLI
    verdicts make two answers equivalent; None: threshold or equality.
    """

    scorers: tuple[str, ...] = ("snne",)
    kind: str = "rouge_l"
    tokenizer: Tokenizer = "unicode"
    symmetrize: str = "none"
    variant: nli.Variant = "strict"
    relate: Relate | None = None
    rule: equivalence.Rule | None = None
    algorithm: str = "greedy"
    threshold: float | None = None
    tau: float = 1.0
    include_self: bool = True


@dataclass(frozen=True)
class Answers:
    """The sampled answers of one item.

    logprobs: for each answer the log-probabilities of its tokens, or None where they are missing.
    matrix: the precomputed similarity, if the item brought one. judged: the answer in question,
    which some scorers compare with the samples. prompt: what was asked.
    """

    texts: Sequence[str]
    logprobs: Sequence[Sequence[float] | None] = ()
    matrix: Sequence[Sequence[float]] | None = None
    judged: Judgement | None = None
    prompt: str = ""


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


def score(
    items: Sequence[Answers], options: Options, check: Callable[[], None] = lambda: None
) -> list[ItemScores]:
    """Score items, in order; long work calls `check`, which may raise, now and then.

    A score that cannot be computed for an item has a reason in place of a value: too few answers,
    no log-probabilities, nothing but empty answers. It never becomes 0.

    Raises:
        ValueError: kind `precomputed` and an item without a matrix.
    """
    needs = frozenset().union(*(SCORERS[name].needs for name in options.scorers))
    texts = [_compared(item, needs) for item in items]
    distinct, positions = similarity.unique_answers(texts, options.tokenizer)
    relations = _relations(items, options, distinct, positions, needs, check)
    matrices, rouge_l = _matrices(items, options, distinct, positions, relations, needs, check)
    results: list[ItemScores | None] = [None] * len(items)
    sizes = np.array([len(item.texts) for item in items])
    for n in np.unique(sizes).tolist():
        chosen = np.flatnonzero(sizes == n).tolist()
        batch = _batch(
            n,
            [items[i] for i in chosen],
            [matrices[i] for i in chosen],
            [rouge_l[i] for i in chosen] if rouge_l else [],
            [positions[i] for i in chosen],
            [relations[i] for i in chosen],
            options,
        )
        representatives = _representatives(batch.similarity, batch.ids)
        scored = [
            ItemScores(n, int(batch.positions[row].max()) + 1, batch.ids[row], representatives[row])
            for row in range(len(chosen))
        ]
        for name in options.scorers:
            _apply(name, batch, scored)
        for i, result in zip(chosen, scored, strict=True):
            results[i] = result
    return [result for result in results if result is not None]


def _compared(item: Answers, needs: frozenset[str]) -> list[str]:
    """The texts to compare: the samples, and after them the judged answer where it is needed."""
    if item.judged is not None and needs & {"answer", "answer_similarity", "answer_nli"}:
        return [*item.texts, item.judged.text]
    return list(item.texts)


def _relations(
    items: Sequence[Answers],
    options: Options,
    distinct: list[list[str]],
    positions: list[Ints],
    needs: frozenset[str],
    check: Callable[[], None],
) -> list[Relations]:
    if options.relate is None:
        return [Relations()] * len(items)
    split = "answer_sentences" in needs
    judged = [item.judged.text if split and item.judged else None for item in items]
    return options.relate([item.prompt for item in items], distinct, positions, judged, check)


def _matrices(
    items: Sequence[Answers],
    options: Options,
    distinct: list[list[str]],
    positions: list[Ints],
    relations: list[Relations],
    needs: frozenset[str],
    check: Callable[[], None],
) -> tuple[list[Matrix], list[Matrix]]:
    """The similarity of the spec, and ROUGE-L where a scorer needs the texts themselves."""
    rouge_l: list[Matrix] = []
    if options.kind in ("rouge_l", "hybrid") or "texts" in needs:
        rouge_l = similarity.rouge_l(distinct, positions, options.tokenizer, check)
    tokenize = TOKENIZERS[options.tokenizer]
    match options.kind:
        case "rouge_l":
            return rouge_l, rouge_l
        case "exact":
            return similarity.exact(positions), rouge_l
        case "jaccard":
            return lexical.jaccard(distinct, positions, tokenize), rouge_l
        case "token_f1":
            return lexical.token_f1(distinct, positions, tokenize), rouge_l
        case "char_ngram":
            return lexical.char_ngram(distinct, positions), rouge_l
        case "nli" | "hybrid" | "embedding":
            return [_of_model(r, options, lex) for r, lex in _paired(relations, rouge_l)], rouge_l
    return [_given(index, item, options) for index, item in enumerate(items)], rouge_l


def _paired(
    relations: list[Relations], rouge_l: list[Matrix]
) -> Iterable[tuple[Relations, Matrix | None]]:
    return zip(relations, rouge_l or [None] * len(relations), strict=True)


def _of_model(relation: Relations, options: Options, lexical: Matrix | None) -> Matrix:
    """(k, k) similarity by the spec's model; `hybrid`: max(0, ROUGE-L - contradiction)."""
    if relation.embeddings is not None:
        return np.clip(relation.embeddings @ relation.embeddings.T, -1.0, 1.0)
    assert relation.nli is not None, "kinds nli and hybrid come with an NLI model"
    if options.kind == "nli":
        return nli.similarity(relation.nli, options.variant)
    contradiction = symmetrize(relation.nli[..., nli.CONTRADICTION], "mean")
    return np.maximum(0.0, np.asarray(lexical) - contradiction)


def _given(index: int, item: Answers, options: Options) -> Matrix:
    if item.matrix is None:
        raise ValueError(f"item {index} has no precomputed similarity")
    return symmetrize(np.asarray(item.matrix, dtype=np.float64), options.symmetrize)


def _batch(
    n: int,
    items: list[Answers],
    matrices: list[Matrix],
    rouge_l: list[Matrix],
    positions: list[Ints],
    relations: list[Relations],
    options: Options,
) -> Batch:
    """Items with n samples; behind them matrices and positions may have the judged answer."""
    own = np.stack([where[:n] for where in positions])
    stacked = np.stack([matrix[:n, :n] for matrix in matrices])
    asked = [r.nli[:n, :n] for r in relations if r.nli is not None]
    vectors = [r.embeddings[:n] for r in relations if r.embeddings is not None]
    verdicts = np.stack(asked) if asked else None
    if options.rule is not None:
        assert verdicts is not None, "a rule comes with an NLI model"
        equivalent = equivalence.equivalent(equivalence.labels(verdicts), options.rule)
    elif options.threshold is not None:
        equivalent = stacked >= options.threshold
    else:
        equivalent = own[:, :, None] == own[:, None, :]
    sums = np.array([[_sum(item.logprobs, i) for i in range(n)] for item in items])
    return Batch(
        n=n,
        tau=options.tau,
        include_self=options.include_self,
        tokenizer=options.tokenizer,
        texts=[item.texts for item in items],
        similarity=stacked,
        rouge_l=np.stack([m[:n, :n] for m in rouge_l]) if rouge_l else np.empty(0),
        logprob=sums[..., 0],
        tokens=sums[..., 1].astype(np.int64),
        ids=CLUSTERINGS[options.algorithm](equivalent),
        positions=own,
        judged=_judged(n, items, matrices, positions, relations),
        nli=verdicts,
        embeddings=np.stack(vectors) if vectors else None,
    )


CLUSTERINGS = {
    "greedy": clustering.greedy,
    "components": clustering.components,
    "first_match": equivalence.first_match,
}


def _sum(logprobs: Sequence[Sequence[float] | None], i: int) -> tuple[float, int]:
    """Log-probability of answer i and its number of tokens; NaN where unknown."""
    tokens = logprobs[i] if i < len(logprobs) else None
    return (sum(tokens), len(tokens)) if tokens else (float("nan"), 0)


def _judged(
    n: int,
    items: list[Answers],
    matrices: list[Matrix],
    positions: list[Ints],
    relations: list[Relations],
) -> Judged:
    equal = np.zeros((len(items), n), dtype=bool)
    to_samples = np.full((len(items), n), np.nan)
    verdicts = np.full((len(items), 2, n, 3), np.nan)
    for row, (matrix, where, relation) in enumerate(
        zip(matrices, positions, relations, strict=True)
    ):
        if len(where) > n:
            equal[row] = where[:n] == where[n]
        if len(matrix) > n:
            to_samples[row] = matrix[n, :n]
        if relation.nli is not None and len(relation.nli) > n:
            verdicts[row] = relation.nli[n, :n], relation.nli[:n, n]
    split = [None if r.sentences is None else r.sentences[:, :n] for r in relations]
    return Judged([item.judged for item in items], equal, to_samples, verdicts, split)


def _representatives(matrices: Matrix, ids: Ints) -> Ints:
    """(B, n): for each cluster its medoid, the member most similar to the others (first one)."""
    member = clustering.membership(ids) > 0
    same = ids[:, :, None] == ids[:, None, :]
    closeness = np.where(same, matrices, 0.0).sum(axis=2)
    return np.asarray(np.where(member, closeness[:, None, :], -np.inf).argmax(axis=2))


def _apply(name: str, batch: Batch, scored: list[ItemScores]) -> None:
    scorer = SCORERS[name]
    if batch.n < scorer.at_least:
        reason = f"needs at least {scorer.at_least} answers, got {batch.n}"
        for item in scored:
            item.reasons[name] = reason
        return
    reasons = _undefined(scorer, batch)
    value = scorer.value(batch)
    confidence = scorer.confidence(batch, value)
    for row, item in enumerate(scored):
        if row in reasons:
            item.reasons[name] = reasons[row]
        elif not np.isfinite(value[row]):
            item.reasons[name] = "is not defined for these answers"
        else:
            item.values[name] = float(value[row])
            if np.isfinite(confidence[row]):
                item.confidences[name] = float(confidence[row])


def _undefined(scorer: Scorer, batch: Batch) -> dict[int, str]:
    """Why the scorer is undefined, for the rows where it is; the first reason counts."""
    reasons: dict[int, str] = {}

    def add(rows: Any, reason: str) -> None:
        for row in np.flatnonzero(rows).tolist():
            reasons.setdefault(row, reason)

    judged = batch.judged
    if "logprobs" in scorer.needs:
        missing = np.isnan(batch.logprob)
        for row in np.flatnonzero(missing.any(axis=1)).tolist():
            reasons[row] = f"responses/{int(np.argmax(missing[row]))} has no token_logprobs"
    if any(need.startswith("answer") for need in scorer.needs):
        add(np.array([answer is None for answer in judged.answers]), "the item has no answer")
    if "answer_logprobs" in scorer.needs:
        add(np.isnan(judged.logprobs).all(axis=1), "answer has no token_logprobs")
    if "answer_top_logprobs" in scorer.needs:
        add(np.isnan(judged.entropy).all(axis=1), "answer has no top_logprobs")
    if "embeddings" in scorer.needs and batch.embeddings is None:
        add(np.ones(len(batch.texts)), "needs the similarity kind embedding")
    if scorer.needs & {"answer_nli", "answer_sentences"} and batch.nli is None:
        add(np.ones(len(batch.texts)), "needs the similarity kind nli or hybrid")
    if "answer_sentences" in scorer.needs:
        add(np.array([part is None for part in judged.sentences]), "answer has no sentence")
    if "answer_similarity" in scorer.needs:
        add(np.isnan(judged.to_samples).any(axis=1), "its similarity to the answers is not given")
    if scorer.at_least > 1 or scorer.needs & {"answer", "answer_similarity"}:
        # Samples that all say nothing agree, but not because the model knows.
        empty = np.array([not any(text.strip() for text in texts) for texts in batch.texts])
        add(empty, "all answers are empty")
    return reasons
