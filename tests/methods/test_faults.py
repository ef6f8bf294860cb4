"""Faults of a spec name the row, the field and the cure."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from methods.faults import did_you_mean, explain, pointer
from methods.jobtype import JobType, SpecModel
from methods.registry import load_registry

JOB_TYPES = [
    job_type
    for job_type in load_registry().values()
    if not job_type.internal and not job_type.runner.startswith("methods.toy")
]


class Circle(SpecModel):
    kind: Literal["circle"] = "circle"
    radius: float = 1


class Square(SpecModel):
    kind: Literal["square"] = "square"
    width: float = 1


class Drawing(SpecModel):
    shapes: list[Annotated[Circle | Square, Field(discriminator="kind")]] = Field([])
    named: dict[str, Circle] = Field({})
    pair: tuple[Circle, ...] | None = None
    colour: Literal["red", "green"] = "red"
    pixels: int = Field(1, alias="size")

    @field_validator("named")
    @classmethod
    def _few(cls, named: dict[str, Circle]) -> dict[str, Circle]:
        if len(named) > 1:
            raise ValueError("at most one may have a name")
        return named


def faults(model: Any, value: Any) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(model).validate_python(value)
    return {pointer(fault["loc"]): explain(fault, model) for fault in caught.value.errors()}


@pytest.mark.parametrize(
    ("value", "place", "message"),
    [
        ({"color": "red"}, "/color", "There is no field 'color' here; did you mean 'colour'?"),
        (
            {"zzz": 1},
            "/zzz",
            "There is no field 'zzz' here; known: colour, named, pair, shapes, size",
        ),
        ({"pixels": 1}, "/pixels", "There is no field 'pixels' here; known: colour, "),
        (
            {"shapes": [{"kind": "square", "widht": 2}]},
            "/shapes/0/square/widht",
            "There is no field 'widht' here; did you mean 'width'?",
        ),
        (
            {"named": {"a/b": {"raduis": 2}}},
            "/named/a~1b/raduis",
            "There is no field 'raduis' here; did you mean 'radius'?",
        ),
        (
            {"pair": [{}, {"radus": 2}]},
            "/pair/1/radus",
            "There is no field 'radus' here; did you mean 'radius'?",
        ),
        ({"colour": "gren"}, "/colour", "; did you mean 'green'?"),
        ({"shapes": [{"kind": "circel"}]}, "/shapes/0", "; did you mean 'circle'?"),
        ({"named": {"a": {}, "b": {}}}, "/named", "at most one may have a name"),
    ],
)
def test_a_fault_says_what_would_be_right(value: Any, place: str, message: str) -> None:
    (found,) = faults(Drawing, value).items()
    assert found[0] == place
    assert message in found[1]
    assert "Value error" not in found[1]


def test_nothing_near_is_no_guess() -> None:
    assert did_you_mean("score-halucination", ["score-hallucination"]).endswith(
        "'score-hallucination'?"
    )
    assert did_you_mean("x" * 10_000, ["score-hallucination"]) == ""


def misspelt(value: Any) -> Iterator[tuple[str, Any]]:
    """Copies of a JSON value with one key misspelt each, and that key."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key, {(f"{k}_" if k == key else k): v for k, v in value.items()}
            for name, changed in misspelt(inner):
                yield name, {**copy.deepcopy(value), key: changed}
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            for name, changed in misspelt(inner):
                yield name, [*value[:place], changed, *value[place + 1 :]]


@pytest.mark.parametrize("job_type", JOB_TYPES, ids=lambda job_type: job_type.name)
def test_every_misspelt_field_of_every_example_is_named(job_type: JobType) -> None:
    named = 0
    for name, spec in misspelt(job_type.example):
        try:
            job_type.spec.model_validate(spec)
        except ValidationError as error:
            for fault in error.errors():
                if fault["type"] == "extra_forbidden" and fault["loc"][-1] == f"{name}_":
                    message = explain(fault, job_type.spec)
                    assert f"'{name}'" in message or f" {name}," in message, message
                    named += 1
    assert named >= 3


def test_the_command_prints_a_line_a_fault(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text('{"datasets": [], "seeed": 1}', encoding="utf-8")
    command = [sys.executable, "-m", "methods", "score-task-hardness", str(spec)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "/seeed: There is no field 'seeed' here; " in done.stderr
    assert "errors.pydantic.dev" not in done.stderr
    command[3] = "score-task-hardnes"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean 'score-task-hardness'?" in done.stderr
