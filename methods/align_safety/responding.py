"""Runs `align-safety-responses`: a model answers prompts of a set."""

from __future__ import annotations

import json

from methods.align_safety.child_jobs import ResponsesMade, ResponsesPart
from methods.context import RunContext
from methods.inference.completion import Completion, Usage
from methods.inference.completion import Sampling as Drawn
from methods.inference.llm import language_model
from methods.responses.reading.prompts import PromptRow, read_prompts
from methods.seeds import derived_seed


def run(spec: ResponsesPart, ctx: RunContext) -> ResponsesMade:
    """Answer the prompts; each has a seed of its own, whatever is asked beside it."""
    rows = {one.row: one for one in read_prompts(spec.prompts, spec.set, ctx)}
    asked = [rows[row] for row in spec.rows]
    raw = spec.template.kind == "raw"
    prompts = [spec.template.prompt.replace("{prompt}", p.text) if raw else p.text for p in asked]
    sampling = spec.sampling
    random = sampling.temperature > 0
    usage, found = Usage(), dict[int, list[Completion]]()
    drawn = language_model(ctx.models, spec.model).sample(
        list(enumerate(prompts)),
        Drawn(
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=derived_seed(spec.seed, spec.set, bits=31)
            if random and (sampling.send_seed or spec.resource != "llm")
            else None,
            seed_each=True,
            logprobs=False,
            chat=not raw,
        ),
        usage,
        ctx.check,
        lambda why: ctx.progress(why, 0, 1, "prompts"),
    )
    for place, answers in drawn:
        found[place] = answers
        ctx.progress("answering", len(found), len(asked), "prompts")
    lines = [
        _line(one, sample, answer)
        for place, one in enumerate(asked)
        for sample, answer in enumerate(found[place])
    ]
    data = "".join(line + "\n" for line in lines).encode()
    file = ctx.save_artifact("responses.jsonl", data, "application/x-ndjson")
    return ResponsesMade(
        responses=len(lines),
        file=file.id,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _line(one: PromptRow, sample: int, answer: Completion) -> str:
    return json.dumps(
        {
            "set": one.set,
            "id": one.id,
            "sample": sample,
            "prompt": one.text,
            "response": answer.text,
            "answer": one.answer,
            "tokens": answer.tokens or None,
            "truncated": answer.cut,
        }
    )
