"""Runs a score-responses job."""

from __future__ import annotations

from typing import Any

from methods.context import RunContext
from methods.responses.counting.gates import front_of, judge_gates
from methods.responses.counting.rates import Response, compared, rates_of
from methods.responses.reading.importing import import_responses
from methods.responses.reading.prompts import normalised
from methods.responses.schema import Rates
from methods.responses.scoring import (
    as_line,
    as_response,
    begins_within,
    judge_here,
    judge_used,
    phrases_of,
    sample_pairs,
)
from methods.responses.showing import cautions
from methods.results import ArtifactRef, Provenance, counted
from methods.row_files import csv_bytes, read_text
from methods.score_responses.blocks import present
from methods.score_responses.spec import JOB, ArmScored, ResponseArm, Result, Spec


def run(spec: Spec, ctx: RunContext) -> Result:
    """Score the responses of a spec; see `Spec` and `Result`."""
    arms: list[list[Response]] = []
    formats, warnings = [], []
    for place, arm in enumerate(spec.arms):
        ctx.progress("reading", place, len(spec.arms), "models")
        given = import_responses(_content(arm, ctx), f"arms/{arm.name}", arm.set)
        formats.append(given.format)
        warnings += given.warnings
        phrases, begun = phrases_of(spec.judge), begins_within(given.responses, spec.think)
        arms.append(
            [
                as_response(one, spec.think, spec.extractor, phrases, begun)
                for one in given.responses
            ]
        )
    together = [one for own in arms for one in own]
    judge_here(together, spec.judge, ctx)
    rates = [rates_of(own) for own in arms]
    scored = [
        _scored(spec, arm.name, kind, own, arms[0], shares, rates[0])
        for arm, kind, own, shares in zip(spec.arms, formats, arms, rates, strict=True)
    ]
    judge = judge_used(together, spec.judge)
    result = Result(
        arms=scored,
        front=[spec.arms[place].name for place in front_of(rates)],
        judge=judge,
        samples=sample_pairs(arms[0], arms[-1], spec.show_harmful),
        artifacts=_save(spec, arms, scored, ctx),
        provenance=Provenance.of(JOB, spec.seed, rules=judge.version),
    )
    result.warnings = [*warnings, *_cautions(spec, result, arms)]
    return present(result, spec)


def _content(arm: ResponseArm, ctx: RunContext) -> str | list[Any]:
    if arm.rows is not None:
        return list(arm.rows)
    assert arm.input is not None, "the spec has rows or an input"
    return read_text(ctx, arm.input, f"arms/{arm.name}")


def _scored(
    spec: Spec,
    name: str,
    kind: str,
    own: list[Response],
    first: list[Response],
    rates: Rates,
    before: Rates,
) -> ArmScored:
    tests = compared(first, own)
    held, verdict = judge_gates(rates, before, tests.accuracy, spec.gates)
    return ArmScored(
        name=name,
        format=kind,
        rates=rates,
        # The first one is not compared with itself.
        **({} if own is first else dict(tests)),
        gates=held,
        verdict=verdict,
    )


def _cautions(spec: Spec, result: Result, arms: list[list[Response]]) -> list[str]:
    first = result.arms[0].rates
    found = [*cautions.about_sets(first), *cautions.about_judge(result.judge)]
    found += cautions.about_floor(first, spec.gates)
    for arm in result.arms:
        found += cautions.about_rates(arm.name, arm.rates)
    prompts = {(one.set, *one.place): normalised(one.prompt) for one in arms[0]}
    for name, own in zip([arm.name for arm in spec.arms], arms, strict=True):
        other = sum(
            prompts.get((one.set, *one.place), "") not in ("", normalised(one.prompt))
            for one in own
            if one.prompt
        )
        if other:
            found.append(
                f"{name} has {counted(other, 'response')} whose prompt is another one than that of "
                f"{spec.arms[0].name} with the same id: paired tests compare different prompts."
            )
    everything = {(one.set, *one.place) for own in arms for one in own}
    for name, own in zip([arm.name for arm in spec.arms], arms, strict=True):
        lacking = len(everything) - len(own)
        if lacking:
            found.append(
                f"{name} has no response to {lacking:,} of {len(everything):,} prompts and "
                "samples that another model has: its shares are of other prompts, and paired tests "
                "leave those out."
            )
    return found


def _save(
    spec: Spec, arms: list[list[Response]], scored: list[ArmScored], ctx: RunContext
) -> dict[str, ArtifactRef]:
    names = [arm.name for arm in spec.arms]
    lines = [as_line(name, one) for name, own in zip(names, arms, strict=True) for one in own]
    fields = list(Rates.model_fields)
    rows = [["name", "verdict", *fields]]
    for one in scored:
        values = [getattr(one.rates, name) for name in fields]
        rows.append([one.name, one.verdict, *(getattr(value, "value", value) for value in values)])
    data = "".join(line + "\n" for line in lines).encode()
    return {
        "responses.jsonl": ctx.save_artifact("responses.jsonl", data, "application/x-ndjson"),
        "arms.csv": ctx.save_artifact("arms.csv", csv_bytes(rows), "text/csv"),
    }
