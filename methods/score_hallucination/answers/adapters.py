"""Specs and items in the form that the numerics take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from methods.context import RunContext
from methods.score_hallucination.schema.items import Answer, Item
from methods.score_hallucination.schema.options import Similarity
from methods.score_hallucination.scoring.batch import REFUSAL, Answers, JudgedAnswer, Options
from methods.score_hallucination.scoring.pairwise import Relate, RelateByEmbedding, RelateByNLI
from methods.score_hallucination.spec import Spec

#: What servers write for a token outside the likeliest (-9999); no model gives so little.
UNKNOWN = -1000.0


def options_of(spec: Spec, ctx: RunContext) -> Options:
    """How to score, from a spec.

    Raises:
        JobError: the similarity's model is unknown or cannot be loaded.
    """
    return Options(
        scorers=tuple(spec.scorers),
        kind=spec.similarity.kind,
        tokenizer=spec.similarity.tokenizer,
        identity=spec.similarity.identity,
        symmetrize=spec.similarity.symmetrize,
        variant=spec.similarity.variant,
        relate=_relate(spec.similarity, ctx),
        rule=spec.clustering.resolved(spec.similarity),
        algorithm=spec.clustering.algorithm,
        threshold=spec.clustering.threshold,
        tau=spec.tau,
        include_self=spec.include_self,
        all_pairs=spec.explain != "none",
        weights={str(name): weight for name, weight in (spec.weights or {}).items()} or None,
    )


def _relate(similarity: Similarity, ctx: RunContext) -> Relate | None:
    if similarity.model is None:
        return None
    if similarity.kind == "embedding":
        from methods.inference.embedder import embedder

        return RelateByEmbedding(embedder(ctx.models, similarity.model))
    from methods.inference.nli import load_nli

    engine = ctx.models.load(similarity.model, load_nli)
    return RelateByNLI(engine, similarity.condition_on_prompt, ctx)


def nli_cost(options: Options) -> dict[str, int]:
    """What the NLI model of these options has done so far; empty without one."""
    relate = options.relate
    return asdict(relate.engine.cost) if isinstance(relate, RelateByNLI) else {}


def answers_of(
    item: Item,
    opinions: Mapping[str, float | str] | None = None,
    units: Sequence[str] = (),
) -> Answers:
    """An item as the numerics take it; it has responses. opinions, units: see `Answers`."""
    assert item.responses is not None, "items without were refused or sampled"
    return Answers(
        texts=[_text(response) for response in item.responses],
        logprobs=[_known(response.token_logprobs) for response in item.responses],
        matrix=item.similarity,
        judged=None if item.answer is None else _judged_answer(item.answer),
        prompt=item.question,
        verifier=item.verifier_responses or (),
        cross=item.verifier_similarity,
        tokens=[response.tokens for response in item.responses],
        opinions=opinions or {},
        unknown=[_is_unknown(response.token_logprobs) for response in item.responses],
        unanswered=item.unanswered,
        units=units,
        context=item.context or (),
        bare=[_text(response) for response in item.responses_without_context or []],
    )


def _text(answer: Answer) -> str:
    return REFUSAL if answer.refusal else answer.text


def _is_unknown(values: list[float | None] | None) -> bool:
    return values is not None and _known(values) is None


def _judged_answer(answer: Answer) -> JudgedAnswer:
    top = answer.top_logprobs
    if top is not None:
        top = [[value for value in place if value > UNKNOWN] for place in top]
    return JudgedAnswer(
        _text(answer),
        _known(answer.token_logprobs),
        top,
        answer.tokens,
        _is_unknown(answer.token_logprobs),
    )


def _known(values: list[float | None] | None) -> list[float] | None:
    """Log-probabilities of all tokens; None where one of them is unknown."""
    if values is None:
        return None
    known = [value for value in values if value is not None and value > UNKNOWN]
    return known if len(known) == len(values) else None
