"""Scores of many items at once: one similarity matrix and one clustering, shared by all scorers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from methods.score_hallucination.scoring.batch import (
    REFUSAL,
    Answers,
    Batch,
    Judged,
    JudgedAnswer,
    Options,
)
from methods.score_hallucination.scoring.catalogue import SCORERS, Scorer
from methods.score_hallucination.scoring.pairwise import Clustered, Compared, Relations
from methods.score_hallucination.scoring.similarity_matrix import similarity_matrices
from methods.score_hallucination.scoring.token_sar import token_sars, weighed
from methods.score_hallucination.similarity import clustering, equivalence
from methods.score_hallucination.similarity.rouge_l import unique_answers
from methods.typing import FloatArray, IntArray

__all__ = ["SCORERS", "Answers", "ItemScores", "JudgedAnswer", "Options", "Scorer", "score"]


@dataclass
class ItemScores:
    """What the scorers say of one item; `values` and `confidences` hold defined scores only.

    similarity: (n, n) of the samples; NaN where an NLI model was not asked. covered: share of
    probability that the alternatives of the judged answer's tokens cover, None where unknown.
    windowed: texts that a model read in windows. prompt_cut: whether it read the prompt's end only.
    units: (u, n, 3) NLI probabilities of the answer's parts as hypotheses of the samples.
    """

    n: int
    n_unique: int
    cluster_ids: IntArray
    representatives: IntArray
    similarity: FloatArray
    covered: float | None = None
    windowed: int = 0
    prompt_cut: bool = False
    units: FloatArray | None = None
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
    if any(not item.texts for item in items):
        return _with_unanswered(items, options, check)
    needs = frozenset().union(*(SCORERS[name].needs for name in options.scorers))
    compared = _compared(items, needs, options)
    relations = options.relate(compared, check) if options.relate else [Relations()] * len(items)
    similarities, rouge_l = similarity_matrices(items, options, compared, relations, needs, check)
    bare = _without_context(items, options, check) if "bare" in needs else None
    results: list[ItemScores | None] = [None] * len(items)
    sizes = np.array([len(item.texts) for item in items])
    for n in np.unique(sizes).tolist():
        chosen = np.flatnonzero(sizes == n).tolist()
        batch = _batch(
            n,
            [items[i] for i in chosen],
            [compared[i] for i in chosen],
            [similarities[i] for i in chosen],
            [rouge_l[i] for i in chosen] if rouge_l else [],
            [relations[i] for i in chosen],
            options,
            np.full(len(chosen), np.nan) if bare is None else bare[chosen],
        )
        representatives = _representatives(batch.similarity, batch.ids)
        scored = [
            ItemScores(
                n,
                int(batch.positions[row].max()) + 1,
                batch.ids[row],
                representatives[row],
                batch.similarity[row],
                batch.judged.covered(row),
                relations[chosen[row]].windowed,
                relations[chosen[row]].prompt_cut,
                relations[chosen[row]].units,
            )
            for row in range(len(chosen))
        ]
        # The ensemble is made of the others.
        for name in sorted(options.scorers, key="ensemble".__eq__):
            _apply(name, batch, scored)
        for i, result in zip(chosen, scored, strict=True):
            results[i] = result
    return [result for result in results if result is not None]


def _with_unanswered(
    items: Sequence[Answers], options: Options, check: Callable[[], None]
) -> list[ItemScores]:
    """Items among which some have no answer at all."""
    answered = [item for item in items if item.texts]
    found = iter(score(answered, options, check) if answered else [])
    nothing = np.zeros(0, dtype=np.int64)
    return [
        next(found)
        if item.texts
        else ItemScores(
            0,
            0,
            nothing,
            nothing,
            np.zeros((0, 0)),
            reasons=dict.fromkeys(options.scorers, item.unanswered or "the item has no answers"),
        )
        for item in items
    ]


def _without_context(
    items: Sequence[Answers], options: Options, check: Callable[[], None]
) -> FloatArray:
    """(N,) confidence of SNNE over the samples without the context, NaN where there are none."""
    alone = replace(options, scorers=("snne",), all_pairs=True)
    asked = [Answers(item.bare, prompt=item.prompt) for item in items]
    return np.array([one.confidences.get("snne", np.nan) for one in score(asked, alone, check)])


def _compared(items: Sequence[Answers], needs: frozenset[str], options: Options) -> list[Compared]:
    """The texts to compare: the samples, and what else the scorers need."""
    with_judged = bool(needs & {"answer", "answer_similarity", "answer_nli"})
    with_verifier, with_tokens = "verifier" in needs, bool(needs & {"tokens", "answer_tokens"})
    texts, judged, verifier = [], [], []
    for item in items:
        own = list(item.texts)
        judged.append(len(own) if with_judged and item.judged is not None else None)
        if with_judged and item.judged is not None:
            own.append(item.judged.text)
        verifier.append(len(own))
        texts.append([*own, *item.verifier] if with_verifier else own)
    distinct, positions = unique_answers(texts, options.level)
    split, grounded = "answer_sentences" in needs, "answer_context" in needs
    only = _only(needs, options)
    return [
        Compared(
            texts=distinct[i],
            where=positions[i],
            n=len(item.texts),
            judged=judged[i],
            verifier=verifier[i],
            prompt=item.prompt,
            split=item.judged.text if split and item.judged else None,
            units=item.units,
            context=item.context if grounded else (),
            grounded=item.judged.text if grounded and item.judged and item.context else None,
            tokens=weighed(item, needs) if with_tokens else (),
            only=only,
        )
        for i, item in enumerate(items)
    ]


def _only(needs: frozenset[str], options: Options) -> Clustered | None:
    """What to ask an NLI model where no scorer reads the similarity of all pairs."""
    by_heads = options.rule is not None and options.algorithm in ("greedy", "first_match")
    if options.all_pairs or not by_heads or needs & {"similarity", "verifier"}:
        return None
    assert options.rule is not None
    judged = bool(needs & {"answer_nli", "answer_similarity"})
    return Clustered(options.rule, options.algorithm == "greedy", judged)


def _batch(
    n: int,
    items: list[Answers],
    compared: list[Compared],
    matrices: list[FloatArray],
    rouge_l: list[FloatArray],
    relations: list[Relations],
    options: Options,
    bare: FloatArray,
) -> Batch:
    """Items with n samples; matrices and relations may also have what else was compared."""
    own = np.stack([c.where[:n] for c in compared])
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
    token_sar = token_sars(items, relations, n)
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
        judged=_judged(n, items, compared, matrices, relations, token_sar[:, n]),
        cross=[
            matrix[:n, c.verifier :] if c.verifier < len(c.where) else None
            for matrix, c in zip(matrices, compared, strict=True)
        ],
        nli=verdicts,
        embeddings=np.stack(vectors) if vectors else None,
        token_sar=token_sar[:, :n],
        opinions=[item.opinions for item in items],
        unknown=[item.unknown for item in items],
        bare=bare,
        weights=options.weights,
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
    compared: list[Compared],
    matrices: list[FloatArray],
    relations: list[Relations],
    token_sar: FloatArray,
) -> Judged:
    equal = np.zeros((len(items), n), dtype=bool)
    to_samples = np.full((len(items), n), np.nan)
    verdicts = np.full((len(items), 2, n, 3), np.nan)
    for row, (c, matrix, relation) in enumerate(zip(compared, matrices, relations, strict=True)):
        if c.judged is None:
            continue
        equal[row] = c.where[:n] == c.where[c.judged]
        to_samples[row] = matrix[c.judged, :n]
        if relation.nli is not None:
            verdicts[row] = relation.nli[c.judged, :n], relation.nli[:n, c.judged]
    return Judged(
        answers=[item.judged for item in items],
        equal=equal,
        to_samples=to_samples,
        nli=verdicts,
        sentences=[relation.sentences for relation in relations],
        units=[relation.units for relation in relations],
        grounds=[relation.grounds for relation in relations],
        token_sar=token_sar,
    )


def _representatives(matrices: FloatArray, ids: IntArray) -> IntArray:
    """(B, n): for each cluster its medoid, the member most similar to the others (first one)."""
    member = clustering.membership(ids) > 0
    same = ids[:, :, None] == ids[:, None, :]
    # A pair that no model was asked about does not count: a head has been compared with all.
    closeness = np.where(same, np.nan_to_num(matrices), 0.0).sum(axis=2)
    return np.asarray(np.where(member, closeness[:, None, :], -np.inf).argmax(axis=2))


def _apply(name: str, batch: Batch, scored: list[ItemScores]) -> None:
    scorer = SCORERS[name]
    if batch.n < scorer.at_least:
        reason = f"needs at least {scorer.at_least} answers, got {batch.n}"
        for item in scored:
            item.reasons[name] = reason
        return
    reasons = _undefined(name, batch)
    if len(reasons) == len(scored):
        for row, item in enumerate(scored):
            item.reasons[name] = reasons[row]
        return
    value = scorer.value(batch)
    confidence = scorer.confidence(batch, value)
    known = np.array([row not in reasons for row in range(len(scored))])
    batch.confidences[name] = np.where(known & np.isfinite(value), confidence, np.nan)
    for row, item in enumerate(scored):
        if row in reasons:
            item.reasons[name] = reasons[row]
        elif not np.isfinite(value[row]):
            item.reasons[name] = "is not defined for these answers"
        else:
            item.values[name] = float(value[row])
            if np.isfinite(confidence[row]):
                item.confidences[name] = float(confidence[row])


def _undefined(name: str, batch: Batch) -> dict[int, str]:
    """Why the scorer is undefined, for the rows where it is; the first reason counts."""
    scorer, reasons = SCORERS[name], dict[int, str]()

    def add(rows: Any, reason: str) -> None:
        for row in np.flatnonzero(rows).tolist():
            reasons.setdefault(row, reason)

    judged = batch.judged
    if "logprobs" in scorer.needs:
        missing = np.isnan(batch.logprob)
        for row in np.flatnonzero(missing.any(axis=1)).tolist():
            place = int(np.argmax(missing[row]))
            given = batch.unknown[row] if row < len(batch.unknown) else ()
            unknown = place < len(given) and given[place]
            reasons[row] = f"responses/{place} has {'unknown' if unknown else 'no'} token_logprobs"
    if any(need.startswith("answer") for need in scorer.needs):
        add(np.array([answer is None for answer in judged.answers]), "the item has no answer")
    if "answer_logprobs" in scorer.needs:
        silent = [answer is not None and answer.unknown for answer in judged.answers]
        add(np.array(silent), "answer has unknown token_logprobs")
        add(np.isnan(judged.logprobs).all(axis=1), "answer has no token_logprobs")
    if "answer_top_logprobs" in scorer.needs:
        tops = [answer.top_logprobs if answer else None for answer in judged.answers]
        add(np.array([not top for top in tops]), "answer has no top_logprobs")
        few = [min(map(len, top or [()])) < 2 for top in tops]
        add(np.array(few), "answer has tokens with fewer than two known top_logprobs")
    by_vectors = scorer.needs & {"embeddings", "tokens", "answer_tokens"}
    if by_vectors and batch.embeddings is None:
        add(np.ones(len(batch.texts)), "needs the similarity kind embedding")
    if "tokens" in scorer.needs:
        missing = np.isnan(batch.token_sar)
        for row in np.flatnonzero(missing.any(axis=1)).tolist():
            reasons.setdefault(row, f"responses/{int(np.argmax(missing[row]))} has no tokens")
    if "answer_tokens" in scorer.needs:
        add(np.isnan(judged.token_sar), "answer has no tokens")
    if "judge" in scorer.needs:
        for row, opinions in enumerate(batch.opinions):
            if not isinstance(found := opinions.get(name, "needs judges"), float):
                reasons.setdefault(row, found)
    if scorer.needs & {"answer_nli", "answer_sentences"} and batch.nli is None:
        add(np.ones(len(batch.texts)), "needs the similarity kind nli or hybrid")
    if "answer_sentences" in scorer.needs:
        add(np.array([part is None for part in judged.sentences]), "answer has no sentence")
    if scorer.needs & {"answer_units", "answer_context"} and batch.nli is None:
        add(np.ones(len(batch.texts)), "needs the similarity kind nli or hybrid")
    if "answer_units" in scorer.needs:
        add(
            np.array([part is None for part in judged.units]), "needs granularity sentence or claim"
        )
    if "answer_context" in scorer.needs:
        add(np.array([part is None for part in judged.grounds]), "the item has no context")
    if "bare" in scorer.needs:
        add(np.isnan(batch.bare), "the item has no responses_without_context to compare with")
    if "answer_similarity" in scorer.needs:
        add(np.isnan(judged.to_samples).any(axis=1), "its similarity to the answers is not given")
    if "verifier" in scorer.needs:
        add(np.array([c is None for c in batch.cross]), "the item has no verifier_responses")
        silent = [c is not None and bool(np.isnan(c).any()) for c in batch.cross]
        add(np.array(silent), "verifier_similarity is not given")
    if scorer.at_least > 1 or scorer.needs & {"answer", "answer_similarity"}:
        # Samples that all say nothing agree, but not because the model knows.
        empty = np.array([not any(text.strip() for text in texts) for texts in batch.texts])
        add(empty, "all answers are empty")
        refused = np.array([all(text == REFUSAL for text in texts) for texts in batch.texts])
        add(refused, "all answers are refusals")
    return reasons
