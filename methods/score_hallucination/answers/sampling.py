"""Draws the answers that items do not bring, and keeps what was drawn beyond this attempt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from methods.context import RunContext
from methods.inference.completion import Prompt
from methods.inference.llm import LanguageModel, language_model
from methods.inference.server_quirks import Quirks
from methods.score_hallucination.answers.answer_store import Drawn, draw, sampling_of, spent
from methods.score_hallucination.answers.early_stopping import Rounds, draw_in_rounds
from methods.score_hallucination.answers.item_reader import Items
from methods.score_hallucination.answers.questions import asked_with
from methods.score_hallucination.result import SamplingResult
from methods.score_hallucination.schema.items import Item, Sampler
from methods.score_hallucination.spec import Spec


def complete(
    items: Items, sampler: Sampler, spec: Spec, ctx: RunContext
) -> tuple[Completed, SamplingResult]:
    """Give every item responses and, where the sampler is asked to, an answer.

    What is drawn is checkpointed; a later attempt of the job draws only what is missing.

    Raises:
        JobError: `model_unknown`, `model_unavailable`, `model_rejected_request`.
    """
    model = language_model(ctx.models, sampler.model)
    usage = spent(ctx)
    shared = sampling_of(sampler, sampler.logprobs)
    greedy = replace(
        shared,
        n=1,
        temperature=0.0,
        top_p=1.0,
        top_logprobs=sampler.top_logprobs * sampler.logprobs,
    )
    context = sampler.context != "none"
    drawn: Drawn | Rounds
    if sampler.stop_early is not None:
        drawn = draw_in_rounds(items, sampler, spec, model, usage, ctx)
    else:
        drawn = Drawn("responses", ctx)
        progress = ("sampling", items.unanswered)
        draw(model, _questions(items, drawn, context), shared, drawn, usage, progress, ctx)
    answers = Drawn("answers", ctx)
    if sampler.greedy_answer:
        unjudged = _questions(items, answers, context, unjudged=True)
        progress = ("answering", items.unanswered)
        draw(model, unjudged, greedy, answers, usage, progress, ctx, may_fail=True)
    bare = Drawn("bare", ctx)
    if sampler.context == "both":
        grounded = (number for number, item in enumerate(items) if item.context)
        wanted = set(grounded)
        questions = ((k, asked) for k, asked in _questions(items, bare, False) if k in wanted)
        draw(model, questions, shared, bare, usage, ("without context", len(wanted)), ctx)
    completed = Completed(items, drawn, answers, bare)
    path = ctx.workdir / "responses.jsonl"
    with path.open("wb") as writer:
        for item in completed:
            if not item.responses:
                item = item.model_copy(update={"responses": None})
            line = item.model_dump_json(exclude_none=True, exclude_defaults=True)
            writer.write(line.encode() + b"\n")
    artifact = ctx.save_artifact("responses.jsonl", path, "application/x-ndjson")
    return completed, SamplingResult(
        model=sampler.model,
        n_items=items.unanswered,
        artifact=artifact,
        stop_early=drawn.saved if isinstance(drawn, Rounds) else None,
        learned=learned(model),
        **asdict(usage),
    )


def learned(model: LanguageModel) -> list[str]:
    """What was learned of the server that was asked, in words."""
    quirks = getattr(model, "quirks", None)
    return quirks.said() if isinstance(quirks, Quirks) else []


def _questions(
    items: Items, kept: Drawn, context: bool, unjudged: bool = False
) -> Iterator[tuple[int, Prompt]]:
    """Prompts of the items without responses (and without an answer) that are not kept yet."""
    for number, item in enumerate(items):
        wanted = item.responses is None and not (unjudged and item.answer is not None)
        if wanted and number not in kept:
            yield number, asked_with(item, context)


class Completed:
    """The items with what was drawn for them, readable as often as needed."""

    def __init__(self, items: Items, drawn: Drawn | Rounds, answers: Drawn, bare: Drawn) -> None:
        self._items, self._drawn, self._answers = items, drawn, answers
        self._bare = bare

    def __iter__(self) -> Iterator[Item]:
        for number, item in enumerate(self._items):
            if item.responses is None:
                update: dict[str, Any] = {"responses": self._drawn[number]}
                if not update["responses"]:
                    update["unanswered"] = self._drawn.refusal(number)
                if item.answer is None and (judged := self._answers.get(number)):
                    update["answer"] = judged[0]
                if bare := self._bare.get(number):
                    update["responses_without_context"] = bare
                item = item.model_copy(update=update)
            yield item
