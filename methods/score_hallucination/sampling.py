"""Draws the answers that items do not bring, and keeps what was drawn beyond this attempt."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from methods.context import RunContext
from methods.errors import Interrupted
from methods.inference.llm import Completion, LanguageModel, Sampling, Usage, language_model
from methods.score_hallucination.items import Answer, Drawing, Item, Sampler
from methods.score_hallucination.reading import Items
from methods.score_hallucination.results import SamplingResult, StoredFile

_SAVED_ITEMS, _SAVED_SECONDS = 256, 10.0


def complete(items: Items, sampler: Sampler, ctx: RunContext) -> tuple[Completed, SamplingResult]:
    """Give every item responses and, where the sampler is asked to, an answer.

    What is drawn is checkpointed; a later attempt of the job draws only what is missing.

    Raises:
        JobError: `model_unknown`, `model_unavailable`, `model_rejected_request`.
    """
    model = language_model(ctx.models, sampler.model)
    usage = Usage(**(ctx.restore("usage") or {}))
    shared = sampling_of(sampler, sampler.logprobs)
    greedy = replace(shared, n=1, temperature=0.0, top_p=1.0)
    drawn = Drawn("responses", ctx)
    answers = Drawn("answers", ctx)
    passes = [(drawn, shared, "sampling")]
    if sampler.greedy_answer:
        passes.append((answers, greedy, "answering"))
    for kept, sampling, phase in passes:
        draw(model, _prompts(items, kept), sampling, kept, usage, (phase, items.unanswered), ctx)
    completed = Completed(items, drawn, answers)
    path = ctx.workdir / "responses.jsonl"
    with path.open("wb") as writer:
        for item in completed:
            writer.write(item.model_dump_json(exclude_none=True).encode() + b"\n")
    artifact = ctx.save_artifact("responses.jsonl", path, "application/x-ndjson")
    return completed, SamplingResult(
        model=sampler.model,
        n_items=items.unanswered,
        artifact=StoredFile(**asdict(artifact)),
        **asdict(usage),
    )


def sampling_of(drawing: Drawing, logprobs: bool = False) -> Sampling:
    """What a spec wants drawn, as the models take it."""
    return Sampling(
        n=drawing.n,
        temperature=drawing.temperature,
        top_p=drawing.top_p,
        max_tokens=drawing.max_tokens,
        stop=tuple(drawing.stop),
        seed=drawing.seed,
        logprobs=logprobs,
        chat=drawing.chat,
    )


def draw(
    model: LanguageModel,
    prompts: Iterator[tuple[int, str]],
    sampling: Sampling,
    kept: Drawn,
    usage: Usage,
    progress: tuple[str, int],
    ctx: RunContext,
) -> None:
    """Draw for prompts by the number of their item, and keep what comes.

    Args:
        progress: the phase, and how many items it is about in all.
    """
    phase, wanted = progress
    ctx.progress(phase, len(kept), wanted, "prompts")
    try:
        for number, completions in model.sample(prompts, sampling, usage, ctx.check):
            kept.add(number, completions, usage)
            ctx.progress(phase, len(kept), wanted, "prompts")
    finally:
        # A server that dies in the middle costs what was in flight, no more.
        with suppress(Interrupted):
            kept.save(usage)


def _prompts(items: Items, kept: Drawn) -> Iterator[tuple[int, str]]:
    for number, item in enumerate(items):
        wanted = item.responses is None if kept.name == "responses" else item.answer is None
        if item.responses is None and wanted and number not in kept:
            assert item.prompt is not None, "the spec was checked against the item"
            yield number, item.prompt


class Completed:
    """The items with what was drawn for them, readable as often as needed."""

    def __init__(self, items: Items, drawn: Drawn, answers: Drawn) -> None:
        self._items, self._drawn, self._answers = items, drawn, answers

    def __iter__(self) -> Iterator[Item]:
        for number, item in enumerate(self._items):
            if item.responses is None:
                update: dict[str, Any] = {"responses": self._drawn[number]}
                if item.answer is None and number in self._answers:
                    update["answer"] = self._answers[number][0]
                item = item.model_copy(update=update)
            yield item


class Drawn:
    """Answers by the number of their item: on disk, and in the job's checkpoints."""

    def __init__(self, name: str, ctx: RunContext, account: str = "usage") -> None:
        self.name, self._ctx, self._account = name, ctx, account
        self._file = (ctx.workdir / f"drawn-{name}.jsonl").open("w+b")
        self._places: dict[int, int] = {}
        self._unsaved: list[tuple[int, list[dict[str, Any]]]] = []
        self._parts, self._saved_at = 0, time.monotonic()
        while (part := ctx.restore(self._key())) is not None:
            for number, answers in part:
                self._write(number, answers)
            self._parts += 1

    def _key(self) -> str:
        return f"{self.name}/{self._parts}"

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __getitem__(self, number: int) -> list[Answer]:
        self._file.seek(self._places[number])
        return [Answer.model_validate(answer) for answer in json.loads(self._file.readline())]

    def add(self, number: int, completions: list[Completion], usage: Usage) -> None:
        """Note what was drawn for an item; now and then make it durable."""
        answers = [{"text": c.text, "token_logprobs": c.logprobs} for c in completions]
        self._write(number, answers)
        self._unsaved.append((number, answers))
        late = time.monotonic() - self._saved_at > _SAVED_SECONDS
        if late or len(self._unsaved) >= _SAVED_ITEMS:
            self.save(usage)

    def save(self, usage: Usage) -> None:
        """Make durable what is not yet."""
        if self._unsaved:
            self._ctx.checkpoint(self._key(), self._unsaved)
            self._ctx.checkpoint(self._account, asdict(usage))
            self._parts += 1
        self._unsaved, self._saved_at = [], time.monotonic()

    def _write(self, number: int, answers: list[dict[str, Any]]) -> None:
        self._places[number] = self._file.seek(0, 2)
        self._file.write(json.dumps(answers).encode() + b"\n")
