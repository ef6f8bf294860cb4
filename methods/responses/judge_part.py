"""Runs `judge-responses`."""

from __future__ import annotations

import json

from methods.context import RunContext
from methods.responses.judging.judge import judge
from methods.responses.reading.importing import import_responses
from methods.responses.scoring import as_response, pairs_to_judge
from methods.responses.spec import JudgeMade, JudgePart
from methods.row_files import read_text


def run(spec: JudgePart, ctx: RunContext) -> JudgeMade:
    """Judge the responses to harmful prompts of a file."""
    given = import_responses(read_text(ctx, spec.responses, "responses"), "responses", "harmful")
    found = [as_response(one, spec.think, "exact", [], spec.begun) for one in given.responses]
    pairs, places = pairs_to_judge(found, spec.judge.reads)
    judged = judge(spec.judge, pairs, ctx)
    lines = []
    for one, place in zip(found, places, strict=True):
        said = judged[place] if place >= 0 else None
        lines.append(
            json.dumps(
                {
                    "id": one.id,
                    "sample": one.sample,
                    "unsafe": said and said.unsafe,
                    "score": said and said.score,
                    "raw": said and said.raw,
                }
            )
        )
    data = "".join(line + "\n" for line in lines).encode()
    ctx.save_artifact("judged.jsonl", data, "application/x-ndjson")
    return JudgeMade(responses=len(found), judged=len(pairs))
