"""Answers of models by the number of the item: on disk, and kept with the job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from methods.context import RunContext
from methods.errors import Interrupted, JobError
from methods.inference.completion import Completion, Prompt, Sampling, Usage
from methods.inference.llm import LanguageModel
from methods.resume import ResumeStore
from methods.score_hallucination.schema.items import Answer, Drawing
from methods.score_hallucination.schema.shapes import as_answer

#: Records of completions, or why there are none.
_Kept = list[dict[str, Any]] | str

_SAVED_ITEMS, _SAVED_SECONDS = 256, 10.0


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


def as_said(completion: Completion) -> dict[str, Any]:
    """What is kept of a completion that is only read: its text."""
    return {"text": completion.text}


def draw(
    model: LanguageModel,
    prompts: Iterator[tuple[int, Prompt]],
    sampling: Sampling,
    kept: Drawn,
    usage: Usage,
    progress: tuple[str, int],
    ctx: RunContext,
    may_fail: bool = False,
) -> None:
    """Draw for prompts by the number of their item, and keep what comes.

    Args:
        progress: the phase, and how many items it is about in all.
        may_fail: whether the job can do without any answer.

    Raises:
        JobError: as `LanguageModel.sample`; `model_rejected_request` where every prompt is refused.
    """
    phase, wanted = progress

    def waiting(why: str) -> None:
        ctx.progress(why, len(kept), wanted, "prompts")

    ctx.progress(phase, len(kept), wanted, "prompts")
    try:
        drawn = model.sample(prompts, sampling, usage, ctx.check, waiting, kept.refuse)
        for number, completions in drawn:
            kept.add(number, completions, usage)
            ctx.progress(phase, len(kept), wanted, "prompts")
        if kept.refusals == len(kept) > 0 and not may_fail:
            raise JobError(
                "model_rejected_request", f"No prompt was answered: {kept.last_refusal}."
            )
    finally:
        # A server that dies in the middle costs what was in flight, no more.
        with suppress(Interrupted):
            kept.save(usage)


def spent(ctx: RunContext, account: str = "usage") -> Usage:
    """What earlier attempts of the job spent on an account of `Drawn`."""
    return Usage(**(ResumeStore(ctx, account).find_value("usage") or {}))


class Drawn:
    """Answers by the number of their item: on disk, and kept with the job.

    Args:
        account: where the usage is kept.
        record: what is kept of a completion.
    """

    def __init__(
        self,
        name: str,
        ctx: RunContext,
        account: str = "usage",
        record: Callable[[Completion], dict[str, Any]] = as_answer,
    ) -> None:
        self._record = record
        self._file = (ctx.workdir / f"drawn-{name.replace('/', '-')}.jsonl").open("w+b")
        self._places: dict[int, int] = {}
        self._unsaved: list[tuple[int, _Kept]] = []
        self.refusals, self.last_refusal = 0, ""
        self._parts, self._saved_at = 0, time.monotonic()
        self._store, self._spent = ResumeStore(ctx, name), ResumeStore(ctx, account)
        while (part := self._store.find_value(str(self._parts))) is not None:
            for number, records in part:
                self._write(number, records)
            self._parts += 1

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __getitem__(self, number: int) -> list[Answer]:
        return [Answer.model_validate(record) for record in self.records(number)]

    def get(self, number: int) -> list[Answer]:
        """The answers to an item; none where it was not asked, or not answered."""
        return self[number] if number in self._places else []

    def records(self, number: int) -> list[dict[str, Any]]:
        """What was kept of an item's completions."""
        found = self._read(number)
        return [] if isinstance(found, str) else found

    def refusal(self, number: int) -> str | None:
        """Why the model gave no answer to an item, or None."""
        found = self._read(number) if number in self else None
        return found if isinstance(found, str) else None

    def _read(self, number: int) -> _Kept:
        self._file.seek(self._places[number])
        found: _Kept = json.loads(self._file.readline())
        return found

    def refuse(self, number: int, why: str) -> None:
        """Note that the model gives no answer to an item."""
        self._write(number, why)
        self._unsaved.append((number, why))

    def add(self, number: int, completions: list[Completion], usage: Usage) -> None:
        """Note what was drawn for an item; now and then make it durable."""
        records = [self._record(completion) for completion in completions]
        self._write(number, records)
        self._unsaved.append((number, records))
        late = time.monotonic() - self._saved_at > _SAVED_SECONDS
        if late or len(self._unsaved) >= _SAVED_ITEMS:
            self.save(usage)

    def save(self, usage: Usage) -> None:
        """Make durable what is not yet."""
        if self._unsaved:
            self._store.keep_value(str(self._parts), self._unsaved)
            self._spent.keep_value("usage", asdict(usage))
            self._parts += 1
        self._unsaved, self._saved_at = [], time.monotonic()

    def _write(self, number: int, records: _Kept) -> None:
        if isinstance(records, str):
            self.refusals, self.last_refusal = self.refusals + 1, records
        self._places[number] = self._file.seek(0, 2)
        self._file.write(json.dumps(records).encode() + b"\n")
