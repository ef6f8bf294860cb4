"""The table of scorers: what each needs, which way it points, and how it becomes a confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from methods.score_hallucination.scorers import (
    consistency,
    ensemble,
    graph,
    kernel_language_entropy,
    ngram,
    sar,
    snne,
    soft_neighbours,
    two_stage,
    whitebox,
)
from methods.score_hallucination.scoring.batch import Batch
from methods.score_hallucination.similarity import equivalence, nli
from methods.score_hallucination.similarity.tokenize import TOKENIZERS
from methods.typing import FloatArray

Direction = Literal["uncertainty", "confidence"]
_Confidence = Callable[[Batch, FloatArray], FloatArray]


@dataclass(frozen=True)
class Scorer:
    """A row of the table of scorers.

    at_least: smallest number of sampled answers. needs: `similarity`, `clusters`, `logprobs`,
    `texts`, `embeddings`, and of the judged answer `answer`, `answer_similarity`,
    `answer_logprobs`, `answer_top_logprobs`, `answer_nli`, `answer_sentences`, `answer_tokens`,
    `answer_units`, `answer_context`; samples without the context (`bare`);
    the `tokens` of the samples; the answers of a `verifier`; the opinions of a `judge`.
    """

    at_least: int
    needs: frozenset[str]
    value: Callable[[Batch], FloatArray]
    confidence: _Confidence
    direction: Direction = "uncertainty"


def _snne_confidence(batch: Batch, value: FloatArray) -> FloatArray:
    """(U_max - U) / (U_max - U_min) by the bounds of n answers; NaN where they do not apply."""
    bounded = snne.snne_bounded(batch.similarity)
    low, high = snne.snne_bounds(batch.n, batch.tau, 0.0, batch.include_self)
    return np.where(bounded, np.clip((high - value) / (high - low), 0, 1), np.nan)


def _of_distance(batch: Batch, value: FloatArray) -> FloatArray:
    """Of a mean over all pairs, each answer with itself included: without the 1/n of those."""
    return np.clip(1 - value * batch.n / (batch.n - 1), 0, 1)


def _of_kernel(kernel: kernel_language_entropy.Kernel) -> _Confidence:
    def confidence(batch: Batch, value: FloatArray) -> FloatArray:
        low, high = kernel_language_entropy.bounds(batch.n, kernel)
        return np.clip((high - value) / (high - low), 0, 1)

    return confidence


def _of_kernel_full(batch: Batch, value: FloatArray) -> FloatArray:
    low, high = kernel_language_entropy.bounds_full(batch.n)
    return np.clip((high - value) / (high - low), 0, 1)


def _of_density(batch: Batch, value: FloatArray) -> FloatArray:
    """Without the 1/n that an answer has of itself among n that are all different."""
    floor = 1 / batch.n if batch.n > 1 else 0.0
    return np.clip((value - floor) / (1 - floor), 0, 1)


def _of_entropy(batch: Batch, value: FloatArray) -> FloatArray:
    return np.asarray(np.clip(1 - value / np.log(batch.n), 0, 1))


def _of_count(batch: Batch, value: FloatArray) -> FloatArray:
    return np.clip((batch.n - value) / (batch.n - 1), 0, 1)


def _complement(batch: Batch, value: FloatArray) -> FloatArray:
    return np.clip(1 - value, 0, 1)


def _of_surprise(batch: Batch, value: FloatArray) -> FloatArray:
    return np.exp(-np.maximum(value, 0))


def _rank_only(batch: Batch, value: FloatArray) -> FloatArray:
    return np.full(value.shape, np.nan)


def _itself(batch: Batch, value: FloatArray) -> FloatArray:
    return np.clip(value, 0, 1)


def _surprise(batch: Batch) -> FloatArray:
    found = ngram.selfcheck_ngram(*_unigrams(batch))
    return np.array([highest[0] for _, highest in found])


def _of_unigrams(batch: Batch, value: FloatArray) -> FloatArray:
    low, high = ngram.bounds(*_unigrams(batch))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip((high - value) / (high - low), 0, 1)


def _unigrams(
    batch: Batch,
) -> tuple[list[list[str]], Sequence[Sequence[str]], Callable[[str], list[str]]]:
    own = [[answer.text if answer else ""] for answer in batch.judged.answers]
    return own, batch.texts, TOKENIZERS[batch.tokenizer]


def _soft_neighbour(batch: Batch, variant: soft_neighbours.Variant) -> FloatArray:
    return soft_neighbours.soft_neighbour(
        batch.similarity, batch.ids, variant, batch.tau, batch.include_self
    )


def _luq_similarity(batch: Batch) -> FloatArray:
    return batch.alike if batch.nli is None else nli.similarity(batch.nli, "luq")


def _semantic_graph(batch: Batch) -> FloatArray:
    if batch.nli is None:
        return kernel_language_entropy.weights_from_similarity(batch.alike)
    return kernel_language_entropy.weights_from_labels(equivalence.labels(batch.nli))


def _selfcheck(batch: Batch) -> FloatArray:
    found = batch.judged.sentences
    return np.array(
        [np.nan if part is None else float(nli.selfcheck_nli(part).mean()) for part in found]
    )


def _of_units(batch: Batch, pooled: Callable[[FloatArray], float]) -> FloatArray:
    return np.array(
        [
            np.nan if part is None else float(pooled(consistency.unit_support(part)))
            for part in batch.judged.units
        ]
    )


def _of_grounds(batch: Batch, function: Callable[[FloatArray], float]) -> FloatArray:
    found = batch.judged.grounds
    return np.array([np.nan if part is None else function(part) for part in found])


def _across(batch: Batch) -> FloatArray:
    return np.array([np.nan if c is None else float(two_stage.mpd_cross(c)) for c in batch.cross])


def _ensemble(batch: Batch) -> FloatArray:
    members = batch.weights or dict.fromkeys(batch.confidences, 1.0)
    undefined = np.full(len(batch.texts), np.nan)
    confidences = [batch.confidences.get(name, undefined) for name in members]
    if not confidences:
        return undefined
    return ensemble.combine(np.array(confidences), np.array(list(members.values())))


def _of_vectors(batch: Batch, function: Callable[[FloatArray], FloatArray]) -> FloatArray:
    assert batch.embeddings is not None, "the scorer needs embeddings"
    return function(batch.embeddings)


def _likeliest_of_equals(batch: Batch) -> npt.NDArray[np.bool_]:
    """(B, n): of equal answers the likeliest one, of equally likely ones the first."""
    same = batch.positions[:, :, None] == batch.positions[:, None, :]
    loglik = batch.loglik
    better = loglik[:, None, :] > loglik[:, :, None]
    earlier = (loglik[:, None, :] == loglik[:, :, None]) & np.tri(batch.n, k=-1, dtype=bool)
    return np.asarray(~(same & (better | earlier)).any(axis=2))


def _uncertainty(
    needs: str,
    value: Callable[[Batch], FloatArray],
    confidence: _Confidence,
    at_least: int = 2,
) -> Scorer:
    return Scorer(at_least, frozenset(needs.split()), value, confidence)


def _by_judges(name: str) -> Scorer:
    return Scorer(1, frozenset({"judge"}), lambda b: b.opinion(name), _itself, "confidence")


def _confidence(
    needs: str, value: Callable[[Batch], FloatArray], confidence: _Confidence = _itself
) -> Scorer:
    return Scorer(1, frozenset(needs.split()), value, confidence, "confidence")


SCORERS: dict[str, Scorer] = {
    "snne": _uncertainty(
        "similarity",
        lambda b: snne.snne(b.similarity, b.tau, b.include_self),
        _snne_confidence,
    ),
    "wsnne": _uncertainty(
        "similarity logprobs",
        lambda b: snne.wsnne(b.similarity, b.loglik, b.tau, b.include_self),
        _snne_confidence,
    ),
    "semantic_entropy": _uncertainty(
        "clusters logprobs", lambda b: snne.semantic_entropy(b.loglik, b.ids), _of_entropy
    ),
    "discrete_semantic_entropy": _uncertainty(
        "clusters", lambda b: snne.discrete_semantic_entropy(b.ids), _of_entropy
    ),
    "predictive_entropy": _uncertainty(
        "logprobs", lambda b: snne.predictive_entropy(b.loglik), _of_surprise, at_least=1
    ),
    "num_semantic_sets": _uncertainty(
        "clusters", lambda b: snne.num_semantic_sets(b.ids), _of_count
    ),
    "lexical_similarity": _uncertainty(
        "texts", lambda b: snne.lexical_similarity(b.rouge_l), lambda b, u: np.clip(-u, 0, 1)
    ),
    "eigv_laplacian": _uncertainty(
        "similarity", lambda b: graph.eigv_laplacian(b.alike), _of_count
    ),
    "degree_matrix": _uncertainty(
        "similarity", lambda b: graph.degree_matrix(b.alike), _of_distance
    ),
    "eccentricity": _uncertainty(
        "similarity",
        lambda b: graph.eccentricity(b.alike),
        lambda b, u: np.clip(1 - u / np.sqrt(b.n - 1), 0, 1),
    ),
    "kernel_language_entropy": _uncertainty(
        "similarity",
        lambda b: kernel_language_entropy.kernel_language_entropy(_semantic_graph(b)),
        _of_kernel("heat"),
    ),
    "kernel_language_entropy_matern": _uncertainty(
        "similarity",
        lambda b: kernel_language_entropy.kernel_language_entropy(_semantic_graph(b), "matern"),
        _of_kernel("matern"),
    ),
    "kernel_language_entropy_full": _uncertainty(
        "similarity clusters logprobs",
        lambda b: kernel_language_entropy.kernel_language_entropy_full(
            _semantic_graph(b), b.loglik, b.ids
        ),
        _of_kernel_full,
    ),
    "luq": _uncertainty("similarity", lambda b: nli.luq(_luq_similarity(b)), _complement),
    "luq_pair": _uncertainty("similarity", lambda b: nli.luq_pair(_luq_similarity(b)), _complement),
    "mpd_self": _uncertainty("similarity", lambda b: two_stage.mpd_self(b.alike), _of_distance),
    "mpd_cross": _uncertainty("verifier", _across, _complement, at_least=1),
    "weighted_cluster_entropy": _uncertainty(
        "clusters logprobs",
        lambda b: whitebox.weighted_cluster_entropy(b.loglik, b.ids),
        _of_entropy,
    ),
    "sentence_sar": _uncertainty(
        "similarity logprobs", lambda b: sar.sentence_sar(b.logprob, b.similarity), _rank_only
    ),
    "snne_full": _uncertainty(
        "similarity clusters", lambda b: _soft_neighbour(b, "full"), _rank_only
    ),
    "snne_num": _uncertainty(
        "similarity clusters", lambda b: _soft_neighbour(b, "only_num"), _rank_only
    ),
    "monte_carlo_probability": _confidence(
        "logprobs", lambda b: whitebox.monte_carlo_probability(b.loglik)
    ),
    "selfcheck_ngram": _uncertainty("answer", _surprise, _of_unigrams, at_least=1),
    "exact_match": _confidence("answer", lambda b: consistency.exact_match(b.judged.equal)),
    "noncontradiction": _confidence(
        "answer_nli",
        lambda b: consistency.noncontradiction(
            b.judged.nli[:, 0], b.judged.nli[:, 1], b.judged.equal
        ),
    ),
    "entailment": _confidence(
        "answer_nli",
        lambda b: consistency.entailment(b.judged.nli[:, 0], b.judged.nli[:, 1], b.judged.equal),
    ),
    "selfcheck_nli": _uncertainty("answer_sentences", _selfcheck, _complement, at_least=1),
    "cosine": _confidence(
        "answer_similarity embeddings",
        lambda b: (0.5 + b.judged.to_samples / 2).mean(axis=1),
        lambda b, v: np.clip(2 * v - 1, 0, 1),
    ),
    "eigenscore": _uncertainty(
        "embeddings", lambda b: _of_vectors(b, whitebox.eigenscore), _rank_only
    ),
    "msp": _uncertainty(
        "answer_logprobs", lambda b: whitebox.msp(b.judged.logprobs), _of_surprise, at_least=1
    ),
    "perplexity": _uncertainty(
        "answer_logprobs",
        lambda b: whitebox.perplexity(b.judged.logprobs),
        _of_surprise,
        at_least=1,
    ),
    "min_token_prob": _confidence(
        "answer_logprobs", lambda b: whitebox.min_token_prob(b.judged.logprobs)
    ),
    "mean_token_entropy": _uncertainty(
        "answer_top_logprobs",
        lambda b: whitebox.mean_over_tokens(b.judged.entropy),
        _of_surprise,
        at_least=1,
    ),
    "prob_margin": _confidence(
        "answer_top_logprobs", lambda b: whitebox.mean_over_tokens(b.judged.margin)
    ),
    "cocoa_msp": _uncertainty(
        "answer_similarity answer_logprobs",
        lambda b: whitebox.cocoa(whitebox.msp(b.judged.logprobs), b.judged.alike),
        _of_surprise,
        at_least=1,
    ),
    "cocoa_ppl": _uncertainty(
        "answer_similarity answer_logprobs",
        lambda b: whitebox.cocoa(whitebox.perplexity(b.judged.logprobs), b.judged.alike),
        _of_surprise,
        at_least=1,
    ),
    "cocoa_mte": _uncertainty(
        "answer_similarity answer_top_logprobs",
        lambda b: whitebox.cocoa(whitebox.mean_over_tokens(b.judged.entropy), b.judged.alike),
        _of_surprise,
        at_least=1,
    ),
    "semantic_density": _confidence(
        "answer_similarity logprobs",
        lambda b: whitebox.semantic_density(b.loglik, b.judged.alike, _likeliest_of_equals(b)),
        _of_density,
    ),
    "token_sar": _uncertainty(
        "answer answer_logprobs answer_tokens", lambda b: b.judged.token_sar, _of_surprise, 1
    ),
    "sar": _uncertainty(
        "similarity logprobs tokens",
        lambda b: sar.sentence_sar(-b.token_sar, b.similarity),
        _rank_only,
    ),
    "p_true": _by_judges("p_true"),
    "verbalized_confidence": _by_judges("verbalized_confidence"),
    "llm_panel": _by_judges("llm_panel"),
    "long_form_mean": _confidence("answer_units", lambda b: _of_units(b, np.mean)),
    "long_form_min": _confidence("answer_units", lambda b: _of_units(b, np.min)),
    "groundedness": _confidence(
        "answer_context", lambda b: _of_grounds(b, consistency.groundedness)
    ),
    "context_contradiction": _uncertainty(
        "answer_context",
        lambda b: _of_grounds(b, consistency.context_contradiction),
        _complement,
        at_least=1,
    ),
    "context_gain": Scorer(
        2,
        frozenset({"similarity", "bare"}),
        lambda b: _snne_confidence(b, snne.snne(b.similarity, b.tau, b.include_self)) - b.bare,
        _rank_only,
        "confidence",
    ),
    "ensemble": _confidence("", _ensemble),
}
