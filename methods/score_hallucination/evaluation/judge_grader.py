"""A model as grader: is an answer right, by its references where there are some?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from methods.context import RunContext
from methods.inference.completion import Prompt, Sampling
from methods.inference.llm import language_model
from methods.score_hallucination.answers.answer_store import Drawn, as_said, draw, spent
from methods.score_hallucination.answers.judge_prompts import GRADING, REFERENCES, read_verdict
from methods.score_hallucination.evaluation.spec import Agreement, Grader
from methods.score_hallucination.schema.items import Item

_TOKENS = 16


class Verdicts:
    """What the grader's model says of the items, by their number."""

    def __init__(self, kept: Drawn) -> None:
        self._kept = kept
        self._given: list[int] = []
        self._said: list[int] = []
        self.unread = 0

    def grade(self, number: int) -> float | None:
        """1 right, 0 wrong; None: not asked, not sure, or not to be read."""
        records = self._kept.records(number) if number in self._kept else []
        value = read_verdict(records[0]) if records else None
        return value if value in (0.0, 1.0) else None

    def compare(self, item: Item, number: int) -> None:
        """Note whether the model agrees with the label that an item brings."""
        if number not in self._kept:
            return
        grade = self.grade(number)
        self.unread += grade is None
        if grade is not None and item.label is not None:
            self._given.append(item.label)
            self._said.append(1 - int(grade))

    def agreement(self, grader: Grader, ctx: RunContext) -> Agreement:
        """How the verdicts compare with given labels, and what they cost."""
        n = len(self._given)
        same = sum(a == b for a, b in zip(self._given, self._said, strict=True))
        share = same / n if n else None
        return Agreement(
            model=grader.model or "",
            n_asked=len(self._kept),
            n_unread=self.unread,
            n_compared=n,
            agreement=share,
            kappa=_kappa(self._given, self._said),
            **asdict(spent(ctx, "grading_usage")),
        )


def _kappa(given: list[int], said: list[int]) -> float | None:
    """Cohen's kappa; None where chance alone would agree on all."""
    n = len(given)
    if n == 0:
        return None
    wrong, called = sum(given) / n, sum(said) / n
    chance = wrong * called + (1 - wrong) * (1 - called)
    same = sum(a == b for a, b in zip(given, said, strict=True)) / n
    return (same - chance) / (1 - chance) if chance < 1 else None


def collect_verdicts(
    items: Iterable[Item], count: int, grader: Grader, ctx: RunContext
) -> Verdicts:
    """Ask the grader's model about every item with a question and an answer, once a job.

    Raises:
        JobError: `model_unknown`, `model_unavailable`, `model_rejected_request`.
    """
    assert grader.model is not None, "the spec was checked"
    kept = Drawn("grading", ctx, "grading_usage", as_said)

    def prompts() -> Iterator[tuple[int, Prompt]]:
        for number, item in enumerate(items):
            text = None if item.answer is None else item.answer.text
            if number not in kept and item.question and text:
                yield number, question(item, text, grader)

    sampling = Sampling(
        n=1,
        temperature=0.0,
        max_tokens=grader.max_tokens or _TOKENS,
        logprobs=False,
        chat=grader.chat,
    )
    model = language_model(ctx.models, grader.model)
    draw(model, prompts(), sampling, kept, spent(ctx, "grading_usage"), ("grading", count), ctx)
    path = ctx.workdir / "verdicts.jsonl"
    verdicts = Verdicts(kept)
    with path.open("w", encoding="utf-8") as writer:
        for number, item in enumerate(items):
            if number in kept:
                name = item.id if item.id is not None else str(number)
                for said in kept.records(number):
                    line = {"item": name, "right": verdicts.grade(number), **said}
                    writer.write(json.dumps(line) + "\n")
    ctx.save_artifact("verdicts.jsonl", path, "application/x-ndjson")
    return verdicts


def question(item: Item, answer: str, grader: Grader) -> str:
    """What the model is asked about an answer."""
    references = [one for one in item.references or [] if one.strip()]
    listed = REFERENCES.format(references="\n".join(references)) if references else ""
    template = GRADING if grader.chat else GRADING + "\n\nVerdict:"
    return template.format(question=item.question, references=listed, answer=answer)
