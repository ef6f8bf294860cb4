"""The similarity matrix of a spec, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from methods.score_hallucination.scoring.batch import Answers, Options
from methods.score_hallucination.scoring.pairwise import Compared, Relations
from methods.score_hallucination.similarity import lexical, nli, rouge_l
from methods.score_hallucination.similarity.rouge_l import symmetrize
from methods.score_hallucination.similarity.tokenize import TOKENIZERS
from methods.typing import FloatArray

_ROUNDING = 1e-6


def similarity_matrices(
    items: Sequence[Answers],
    options: Options,
    compared: list[Compared],
    relations: list[Relations],
    needs: frozenset[str],
    check: Callable[[], None],
) -> tuple[list[FloatArray], list[FloatArray]]:
    """(k, k) similarity of the spec, and ROUGE-L where a scorer needs the texts themselves."""
    distinct, positions = [c.texts for c in compared], [c.where for c in compared]
    rouge: list[FloatArray] = []
    if options.kind in ("rouge_l", "hybrid") or "texts" in needs:
        rouge = rouge_l.rouge_l(distinct, positions, options.tokenizer, check)
    tokenize = TOKENIZERS[options.tokenizer]
    match options.kind:
        case "rouge_l":
            return rouge, rouge
        case "exact":
            return rouge_l.exact(positions), rouge
        case "jaccard":
            return lexical.jaccard(distinct, positions, tokenize), rouge
        case "token_f1":
            return lexical.token_f1(distinct, positions, tokenize), rouge
        case "char_ngram":
            return lexical.char_ngram(distinct, positions), rouge
        case "embedding":
            return [_cosine(relation) for relation in relations], rouge
        case "nli":
            return [nli.similarity(_verdicts(r), options.variant) for r in relations], rouge
        case "hybrid":
            pairs = zip(relations, rouge, strict=True)
            return [_hybrid(relation, own) for relation, own in pairs], rouge
    given = enumerate(zip(items, compared, strict=True))
    return [_given(index, item, c, options) for index, (item, c) in given], rouge


def _verdicts(relation: Relations) -> FloatArray:
    assert relation.nli is not None, "kinds nli and hybrid come with an NLI model"
    return relation.nli


def _cosine(relation: Relations) -> FloatArray:
    assert relation.embeddings is not None, "kind embedding comes with an embedding model"
    cosines = np.clip(relation.embeddings @ relation.embeddings.T, -1.0, 1.0)
    # An answer that has no vector of its own is like itself all the same.
    np.fill_diagonal(cosines, 1.0)
    return cosines


def _hybrid(relation: Relations, rouge: FloatArray) -> FloatArray:
    """max(0, ROUGE-L - P(contradiction)): negations are no longer alike."""
    contradiction = symmetrize(_verdicts(relation)[..., nli.CONTRADICTION], "mean")
    return np.maximum(0.0, rouge - contradiction)


def _given(index: int, item: Answers, compared: Compared, options: Options) -> FloatArray:
    """(k, k) of what the item brings: its samples, and those against the verifier's answers."""
    if item.matrix is None:
        raise ValueError(f"item {index} has no precomputed similarity")
    n, k = compared.n, len(compared.where)
    full = np.full((k, k), np.nan)
    own = np.array(item.matrix, dtype=np.float64)
    diagonal = np.arange(n)
    # Cosines in float32 are 0.9999999 where they should be 1.
    own[diagonal, diagonal] = np.where(
        np.abs(own[diagonal, diagonal] - 1) <= _ROUNDING, 1.0, own[diagonal, diagonal]
    )
    full[:n, :n] = symmetrize(own, options.symmetrize)
    if item.cross is not None and compared.verifier < k:
        full[:n, compared.verifier :] = item.cross
    return full
