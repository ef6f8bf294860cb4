"""Specs and items in the form that the numerics take."""

from __future__ import annotations

from methods.score_hallucination.core import Answers, Judgement, Options
from methods.score_hallucination.spec import Answer, Item, Spec


def options_of(spec: Spec) -> Options:
    """How to score, from a spec."""
    return Options(
        scorers=tuple(spec.scorers),
        kind=spec.similarity.kind,
        tokenizer=spec.similarity.tokenizer,
        symmetrize=spec.similarity.symmetrize,
        algorithm=spec.clustering.algorithm,
        threshold=spec.clustering.threshold,
        tau=spec.tau,
        include_self=spec.include_self,
    )


def answers_of(item: Item) -> Answers:
    """An item as the numerics take it; it has responses."""
    assert item.responses is not None, "items without were refused or sampled"
    return Answers(
        texts=[response.text for response in item.responses],
        logprobs=[response.token_logprobs for response in item.responses],
        matrix=item.similarity,
        judged=None if item.answer is None else _judgement(item.answer),
    )


def _judgement(answer: Answer) -> Judgement:
    return Judgement(answer.text, answer.token_logprobs, answer.top_logprobs)
