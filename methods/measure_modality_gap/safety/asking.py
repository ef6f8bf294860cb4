"""Has models answer prompts under every condition, and a judge read what they said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from methods.children import Child
from methods.context import RunContext
from methods.jobtype import InputRef, ModelRef
from methods.measure_modality_gap.safety.child_jobs import ANSWERS_PART, AnswersMade, AnswersPart
from methods.measure_modality_gap.safety.counting import Said, Under, counted_under
from methods.measure_modality_gap.safety_schema import (
    ImagePrompts,
    SafetyCheck,
    SafetyFound,
    SafetyOf,
)
from methods.measure_modality_gap.settings import ImageTextPairs
from methods.parts import Parts
from methods.responses.asking import judge_drawn
from methods.responses.counting.rates import Response
from methods.responses.reading.importing import import_responses
from methods.responses.reading.prompts import read_prompts
from methods.responses.schema import RuleJudge, SetName
from methods.responses.scoring import as_response, judge_used, phrases_of

#: Prompts of a part: about a minute of a small model on a CPU.
_PROMPTS_A_PART = 256


@dataclass(frozen=True)
class Asked:
    """A model to ask.

    Attributes:
        alone: the model that is asked without images, where another one says the same there.
    """

    name: str
    model: ModelRef
    alone: ModelRef | None = None


@dataclass(frozen=True)
class Images:
    """Where images are for prompts that bring none.

    Attributes:
        rows: of the pairs; None: the first ones.
    """

    pairs: ImageTextPairs | None
    rows: list[int] | None = None


@dataclass
class Answered:
    """What models said.

    Attributes:
        lines: of `responses.jsonl`, without the prompts.
        answered: responses of every model by condition.
    """

    found: SafetyFound
    lines: bytes
    answered: list[Under]


@dataclass
class _Answers:
    file: InputRef
    responses: list[Response]
    odd: list[float | None]


def ask(
    models: Sequence[Asked],
    check: SafetyCheck,
    images: Images,
    seed: int,
    device: Literal["cpu", "gpu"],
    parts: Parts,
    ctx: RunContext,
) -> Answered:
    """Ask models under every condition.

    Raises:
        JobError: of bad prompts or images, of models and judges.
    """
    sets: dict[SetName, ImagePrompts] = {"harmful": check.harmful}
    if check.benign is not None:
        sets["benign"] = check.benign
    specs, owners = [], []
    for name, given in sets.items():
        rows = [one.row for one in read_prompts(given, name, ctx)]
        starts = range(0, len(rows), _PROMPTS_A_PART)
        for (owner, one), condition, start in product(enumerate(models), check.conditions, starts):
            shows = images if condition == "image" else Images(None)
            owners.append((owner, condition))
            specs.append(
                AnswersPart(
                    model=(condition == "text-only" and one.alone) or one.model,
                    set="harmful" if name == "harmful" else "benign",
                    prompts=given,
                    rows=rows[start : start + _PROMPTS_A_PART],
                    condition=condition,
                    pairs=shows.pairs,
                    pair_rows=shows.rows,
                    max_tokens=check.max_tokens,
                    seed=seed,
                    device=device,
                )
            )
    children = parts.all(ANSWERS_PART, specs, "answering")
    drawn = [_read(child, spec.set, check) for child, spec in zip(children, specs, strict=True)]
    harmful = [
        (one.file, one.responses)
        for one, spec in zip(drawn, specs, strict=True)
        if spec.set == "harmful"
    ]
    judge_drawn(harmful, check.judge, check.think, False, device, parts, ctx)
    answered: list[Under] = [{one: [] for one in check.conditions} for _ in models]
    for part, (owner, condition) in zip(drawn, owners, strict=True):
        pairs = zip(part.responses, part.odd, strict=True)
        answered[owner][condition] += [Said.of(one, odd) for one, odd in pairs]
    judged = not isinstance(check.judge, RuleJudge)
    every = [one.response for under in answered for own in under.values() for one in own]
    return Answered(
        SafetyFound(
            subjects=[
                SafetyOf(name=one.name, conditions=counted_under(under, judged))
                for one, under in zip(models, answered, strict=True)
            ],
            judge=judge_used(every, check.judge),
        ),
        "".join(_lines(models, answered, judged)).encode(),
        answered,
    )


def _read(child: Child, of: Literal["harmful", "benign"], check: SafetyCheck) -> _Answers:
    made = AnswersMade.model_validate(child.result)
    with child.open("responses.jsonl") as reader:
        text = reader.read().decode()
    phrases = phrases_of(check.judge)
    given = import_responses(text, "responses", of).responses
    return _Answers(
        InputRef(made.file),
        [as_response(one, check.think, "exact", phrases) for one in given],
        [json.loads(line)["odd"] for line in text.splitlines()],
    )


def _lines(models: Sequence[Asked], answered: Sequence[Under], judged: bool) -> list[str]:
    return [
        json.dumps(
            {
                "subject": model.name,
                "condition": condition,
                "set": one.response.set,
                "id": one.response.id,
                "response": one.response.text,
                "outcome": one.outcome,
                "unsafe": one.response.unsafe if judged else None,
            }
        )
        + "\n"
        for model, under in zip(models, answered, strict=True)
        for condition, said in under.items()
        for one in said
    ]
