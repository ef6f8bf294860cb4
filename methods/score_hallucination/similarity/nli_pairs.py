"""Which pairs an NLI model is asked about, where only clusters and the judged answer matter.

Clusters by heads read few pairs of the whole matrix: those of the heads, and of them the second
direction only where the first leaves it open. The clusters are the same as of the whole matrix.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from methods.score_hallucination.similarity.equivalence import Rule, equivalent, labels
from methods.score_hallucination.similarity.nli import CONTRADICTION, ENTAILMENT
from methods.typing import FloatArray

TextPair = tuple[int, int]


def pairs_read(
    where: Sequence[int], retake: bool, rule: Rule, verdicts: FloatArray
) -> Generator[list[TextPair]]:
    """Pairs (premise, hypothesis) of texts that a clustering by heads reads, in rounds.

    Args:
        where: which text each of the n answers is.
        retake: whether a head takes answers that an earlier one took, as `greedy` does and
            `first_match` does not.
        verdicts: (m, m, 3) NLI probabilities of the texts, NaN where not asked; the caller fills in
            what a round asks for before it takes the next.
    """
    taken = np.zeros(len(where), dtype=bool)
    for head, text in enumerate(where):
        if taken[head]:
            continue
        taken[head] = True
        later = [j for j in range(head + 1, len(where)) if retake or not taken[j]]
        others = [other for other in dict.fromkeys(where[j] for j in later) if other != text]
        if ahead := _unknown(verdicts, [(text, other) for other in others]):
            yield ahead
        first = labels(verdicts[text])
        both = [other for other in others if _open(int(first[other]), rule)]
        if back := _unknown(verdicts, [(other, text) for other in both]):
            yield back
        same = equivalent(labels(verdicts), rule)[text]
        for j in later:
            taken[j] |= same[where[j]]


def _unknown(verdicts: FloatArray, pairs: list[TextPair]) -> list[TextPair]:
    return [pair for pair in pairs if np.isnan(verdicts[pair]).any()]


def _open(first: int, rule: Rule) -> bool:
    """Whether the other direction still decides."""
    match rule:
        case "strict":
            return first == ENTAILMENT
        case "loose":
            return first != CONTRADICTION
    return first != ENTAILMENT
