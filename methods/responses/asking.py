"""Has a model judge responses that parts of a job have drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

from methods.children import Child
from methods.context import RunContext
from methods.jobtype import InputRef
from methods.parts import Parts
from methods.responses.counting.rates import Response
from methods.responses.judging.judged import Judged
from methods.responses.schema import Judge, RubricJudge, RuleJudge, Think
from methods.responses.scoring import put_judgements
from methods.responses.spec import JOB, JudgePart


def judge_drawn(
    drawn: Sequence[tuple[InputRef, Sequence[Response]]],
    judge: Judge,
    think: Think | None,
    begun: bool,
    device: Literal["cpu", "gpu"],
    parts: Parts,
    ctx: RunContext,
) -> None:
    """Have the judge read responses to harmful prompts, file by file; the rule has none to ask.

    Args:
        drawn: files of responses with what was read from them, in which the judgements are put.
        begun: prompts end within the thinking.
        device: where a judge without a server runs.

    Raises:
        JobError: what judges raise.
    """
    if isinstance(judge, RuleJudge):
        return
    served = isinstance(judge, RubricJudge) or ctx.models.find(judge.model).base_url is not None
    specs = [
        JudgePart(
            judge=judge,
            responses=file,
            think=think,
            begun=begun,
            resource="llm" if served else device,
        )
        for file, _ in drawn
    ]
    for child in parts.ask(JOB, specs, "judging"):
        _put(drawn[child.place][1], child)


def _put(responses: Sequence[Response], child: Child) -> None:
    with child.open("judged.jsonl") as reader:
        lines = [json.loads(line) for line in reader.read().decode().splitlines()]
    judged = [Judged(one["unsafe"], one["raw"] or "", one["score"]) for one in lines]
    places = [-1 if one["raw"] is None else place for place, one in enumerate(lines)]
    put_judgements(responses, places, judged)
