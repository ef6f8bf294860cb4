"""Runs `image-text-answers`: a model answers prompts with or without an image, greedily."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from methods.context import RunContext
from methods.errors import JobError
from methods.inference.image_text_model import image_text_model
from methods.measure_modality_gap.reading.pairs import Pairs, made_image, row_image
from methods.measure_modality_gap.safety.child_jobs import AnswersMade, AnswersPart
from methods.responses.reading.prompts import PromptRow, read_prompts
from methods.row_files import RowError, invalid_rows, rows_of
from methods.select_subset.data.images import Archive

#: Images of pairs that stand before prompts without one, at most.
_MOST_IMAGES = 256


def run(spec: AnswersPart, ctx: RunContext) -> AnswersMade:
    """Answer the prompts of a part; see `AnswersPart` and `AnswersMade`."""
    rows = {one.row: one for one in read_prompts(spec.prompts, spec.set, ctx)}
    asked = [rows[row] for row in spec.rows]
    images = _images(asked, spec, ctx)
    model = image_text_model(ctx.models, spec.model)

    def progress(done: int) -> None:
        ctx.progress("answering", done, len(asked), "prompts")

    answers = model.answers([one.text for one in asked], images, spec.max_tokens, progress)
    odd = model.oddities([one.text for one in asked], answers)
    lines = [
        json.dumps(
            {
                "set": spec.set,
                "id": one.id,
                "sample": 0,
                "prompt": one.text,
                "response": answer.text,
                "tokens": len(answer.ids),
                "truncated": answer.cut,
                "odd": share,
            }
        )
        for one, answer, share in zip(asked, answers, odd, strict=True)
    ]
    data = "".join(line + "\n" for line in lines).encode()
    file = ctx.save_artifact("responses.jsonl", data, "application/x-ndjson")
    return AnswersMade(responses=len(lines), file=file.id)


def _images(asked: Sequence[PromptRow], spec: AnswersPart, ctx: RunContext) -> list[Any] | None:
    """An image a prompt; None where they stand alone."""
    if spec.condition == "text-only":
        return None
    if spec.condition != "image":
        return [made_image(spec.condition, one.row, spec.seed) for one in asked]
    found = _own(asked, spec, ctx)
    if any(image is None for image in found):
        others = _of_pairs(spec, ctx)
        found = [
            others[one.row % len(others)] if image is None else image
            for one, image in zip(asked, found, strict=True)
        ]
    return found


def _own(asked: Sequence[PromptRow], spec: AnswersPart, ctx: RunContext) -> list[Any]:
    """The images that prompts bring, None of others."""
    prompts, name = spec.prompts, spec.prompts.image_field
    rows = rows_of(ctx, prompts, spec.set, [prompts.prompt_field], "Set prompt_field.")
    found: list[Any] = []
    bad = []
    with ExitStack() as stack:
        archive = None
        if prompts.images is not None:
            archive = Archive(prompts.images, ctx)
            stack.callback(archive.close)
        for one in asked:
            value = rows[one.row].get(name)
            try:
                found.append(None if value in (None, "") else row_image(value, name, archive))
            except RowError as fault:
                bad.append(fault.at(one.row))
    if bad:
        raise invalid_rows(spec.set, bad, len(rows))
    return found


def _of_pairs(spec: AnswersPart, ctx: RunContext) -> list[Any]:
    if spec.pairs is None or spec.pairs.synthetic is not None:
        raise JobError(
            "input_invalid",
            f"{spec.set}: prompts have no image in {spec.prompts.image_field!r} and there are no "
            "pairs with images; bring images, or leave out the condition image.",
        )
    rows = None if spec.pair_rows is None else spec.pair_rows[:_MOST_IMAGES]
    source = Pairs(spec.pairs, _MOST_IMAGES, True, spec.seed, ctx, rows)
    return [one.image for one in source.read()]
