"""Asks judges about answers, keeps what they say beyond this attempt, and reads it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from methods.context import RunContext
from methods.inference.choices import without_thoughts
from methods.inference.completion import Completion, Sampling
from methods.inference.llm import language_model
from methods.results import ArtifactRef
from methods.score_hallucination.answers.answer_store import Drawn, as_said, draw, spent
from methods.score_hallucination.answers.judge_prompts import MESSAGES
from methods.score_hallucination.result import JudgingResult
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.schema.judges import JUDGE_SCORERS, Judge, Judgement, JudgeScorer
from methods.score_hallucination.spec import Spec

_SAID = 160


def collect_judgements(
    items: Iterable[Item],
    spec: Spec,
    ctx: RunContext,
    wanted: Callable[[int], bool] = lambda number: True,
) -> tuple[Judgements, JudgingResult | None]:
    """Ask every judge about every wanted item, one request for each of the spec's scorers.

    What they say is checkpointed; a later attempt of the job asks only what is missing.

    Args:
        items: with responses; read once for every judge and scorer.
        wanted: by the number of an item, whether the judges are asked about it.

    Returns:
        What they say, and what that cost; None where the spec asks no judge.

    Raises:
        JobError: `model_unknown`, `model_unavailable`, `model_rejected_request`.
    """
    judges, scorers = spec.judges, _asking(spec)
    if not judges or not scorers:
        return Judgements([], {}), None
    usage = spent(ctx, "judging_usage")
    total = sum(_lacks(item) is None and wanted(k) for k, item in enumerate(items))
    replies: dict[JudgeScorer, list[Drawn]] = {name: [] for name in scorers}
    for k, one in enumerate(judges):
        model = language_model(ctx.models, one.model)
        for name in scorers:
            kept = Drawn(f"judging/{name}/{k}", ctx, "judging_usage", _with_likeliest)
            prompts = _prompts(items, wanted, name, one, kept)
            draw(model, prompts, _sampling(name, one), kept, usage, ("judging", total), ctx)
            replies[name].append(kept)
    judgements = Judgements([one.model for one in judges], replies)
    return judgements, JudgingResult(
        judges=[one.model for one in judges],
        n_items=total,
        artifact=_save(items, judgements, ctx),
        **asdict(usage),
    )


def _asking(spec: Spec) -> list[JudgeScorer]:
    first = None if spec.verifier is None else spec.verifier.scorer
    return [name for name in JUDGE_SCORERS if name in (*spec.scorers, first)]


def provenance_fields(spec: Spec) -> dict[str, Any]:
    """Judges and their messages, for the provenance of a result; nothing without judges."""
    names = _asking(spec)
    if not spec.judges or not names:
        return {}
    return {
        "judges": [one.model_dump() for one in spec.judges],
        "messages": {
            name: sorted({MESSAGES[name].words(one.chat) for one in spec.judges}) for name in names
        },
    }


class Judgements:
    """What the judges say of an item, by its number."""

    def __init__(self, judges: list[str], replies: dict[JudgeScorer, list[Drawn]]) -> None:
        self._judges, self._heard = judges, replies

    def records(self, number: int) -> dict[JudgeScorer, list[dict[str, Any]]]:
        """For each scorer what every judge said, in full; nothing where they were not asked."""
        return {
            name: [
                {"judge": name_of_judge, "value": MESSAGES[name].read(said), **said}
                for name_of_judge, kept in zip(self._judges, drawn, strict=True)
                for said in kept.records(number)
            ]
            for name, drawn in self._heard.items()
            if number in drawn[0]
        }

    def of(self, number: int) -> dict[str, list[Judgement]]:
        """For each scorer what every judge said, for display."""
        return {
            name: [
                Judgement(judge=said["judge"], value=said["value"], said=said["text"][:_SAID])
                for said in records
            ]
            for name, records in self.records(number).items()
        }

    def scores(self, item: Item, number: int) -> dict[str, float | str]:
        """For each scorer the mean over the judges that can be read, or why there is none."""
        if (lack := _lacks(item)) is not None:
            return dict.fromkeys(self._heard, lack)
        found: dict[str, float | str] = {}
        for name, records in self.records(number).items():
            if not records:
                found[name] = "every judge's server refuses the question"
                continue
            values = [record["value"] for record in records if record["value"] is not None]
            found[name] = sum(values) / len(values) if values else MESSAGES[name].unread
        return found


def _lacks(item: Item) -> str | None:
    if item.answer is None or not item.answer.text.strip():
        return "the item has no answer"
    return None if item.question else "the item has no prompt"


def _prompts(
    items: Iterable[Item],
    wanted: Callable[[int], bool],
    name: JudgeScorer,
    one: Judge,
    kept: Drawn,
) -> Iterator[tuple[int, str]]:
    for number, item in enumerate(items):
        if number not in kept and _lacks(item) is None and wanted(number):
            assert item.answer, "see _lacks"
            ideas = [answer.text for answer in item.responses or []] if one.brainstorm else []
            yield number, MESSAGES[name].about(item.question, item.answer.text, ideas, one.chat)


def _sampling(name: JudgeScorer, one: Judge) -> Sampling:
    message = MESSAGES[name]
    return Sampling(
        n=1,
        temperature=0.0,
        max_tokens=one.max_tokens or message.max_tokens,
        logprobs=False,
        top_logprobs=message.likeliest,
        chat=one.chat,
    )


def _with_likeliest(completion: Completion) -> dict[str, Any]:
    completion = without_thoughts(completion)
    top = completion.top_logprobs
    return as_said(completion) | ({} if not top else {"likeliest": top[0]})


def _save(items: Iterable[Item], judgements: Judgements, ctx: RunContext) -> ArtifactRef:
    path = ctx.workdir / "judgements.jsonl"
    with path.open("w", encoding="utf-8") as writer:
        for number, item in enumerate(items):
            name = item.id if item.id is not None else str(number)
            for scorer, records in judgements.records(number).items():
                for record in records:
                    line = json.dumps({"item": name, "scorer": scorer, **record})
                    writer.write(line + "\n")
    return ctx.save_artifact("judgements.jsonl", path, "application/x-ndjson")
