"""What the gateway refuses before anything runs."""

import json
import subprocess
import sys

import jsonschema
import pytest
from pydantic import ValidationError

from methods.jobtype import input_refs, references
from methods.select_subset.schema.methods import PARAMS
from methods.select_subset.spec import JOB, Spec

VALUES = {
    "trajectory": [[1.0, 2.0], [2.0, 3.0]],
    "singular_values": [[[1.0], [2.0]], [[2.0], [3.0]]],
    "embedding": [[1.0, 2.0], [2.0, 3.0]],
    "image_embedding": [[1.0, 2.0], [2.0, 3.0]],
    "text_embedding": [[1.0, 2.0], [2.0, 3.0]],
    "score": [1.0, 2.0],
    "correctness": [[1.0, 0.0], [1.0, 1.0]],
    "gradient": [[1.0, 2.0], [2.0, 3.0]],
    "target_gradient": [[1.0, 2.0]],
    "task_score": [[1.0, 2.0], [2.0, 3.0]],
}
DATASET = {"rows": [{"id": 1, "task": "a"}, {"id": 2, "task": "b"}]}


def spec(method, kinds, **more):
    features = [{"kind": kind, "values": VALUES[kind]} for kind in sorted(kinds)] or None
    base = {"method": method, "features": features, "budget": {"count": 1}}
    if method in {"random", "stratified", "presel"}:
        base["dataset"] = DATASET
    if method == "stratified":
        base["groups"] = {"field": "task", "balance": "equal"}
    if method == "presel":
        base |= {"groups": {"field": "task"}, "params": {"irs": {"a": 0.5, "b": 0.6}}}
    return base | more


@pytest.mark.parametrize("method", PARAMS)
def test_each_method_takes_what_it_declares_and_nothing_else(method):
    for way in PARAMS[method].needs:
        assert Spec.model_validate(spec(method, way)).method == method
    every = {"trajectory", "embedding", "score"}
    for kinds in ({"correctness", "task_score"}, every, set()):
        if frozenset(kinds) not in PARAMS[method].needs:
            with pytest.raises(ValidationError, match=f"method {method} needs"):
                Spec.model_validate(spec(method, kinds))


def test_params_belong_to_the_method_and_faults_have_their_place():
    for params, place in (({"clusters": 0}, "clusters"), ({"nope": 1}, "nope")):
        with pytest.raises(ValidationError) as caught:
            Spec.model_validate(spec("xmas", {"trajectory"}, params=params))
        assert caught.value.errors()[0]["loc"] == ("params", place)
    assert Spec.model_validate(spec("d2", {"score", "embedding"})).params.gamma == 0.4
    again = Spec.model_validate_json(
        Spec.model_validate(spec("ccs", {"score"}, params={"cut": 0.1})).model_dump_json()
    )
    assert again.params.cut == 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": {"fraction": 0}}, "greater than 0"),
        ({"budget": {"fraction": 1.1}}, "less than or equal to 1"),
        ({"budget": {"count": 0}}, "greater than or equal to 1"),
        ({"budget": {}}, "exactly one of fraction and count"),
        ({"budget": {"fraction": 0.5, "count": 3}}, "exactly one of fraction and count"),
        ({"method": "magic"}, "Input should be"),
        ({"groups": {"field": "task"}}, "groups need a dataset"),
        ({"dataset": {}}, "exactly one of input and rows"),
        ({"dataset": {"rows": [{}], "format": "parquet"}}, "not parquet"),
        ({"dataset": {"rows": [{}], "format": "webdataset"}}, "not webdataset"),
        ({"features": {"kind": "trajectory"}}, "exactly one of input, inputs and values"),
        (
            {"features": {"kind": "trajectory", "values": [[1.0]], "ids": ["a", "b"]}},
            "ids belong to values",
        ),
        ({"features": {"kind": "embedding", "inputs": ["a"]}}, "has no checkpoints"),
        ({"features": {"kind": "score", "values": [1.0], "tasks": ["a"]}}, "tasks belong to"),
        ({"model": {"proxy": "x"}}, "Extra inputs"),
    ],
)
def test_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate(spec("xmas", {"trajectory"}) | change)


def test_refused_groups():
    with pytest.raises(ValidationError, match="stratified needs groups with balance"):
        Spec.model_validate(spec("stratified", (), groups={"field": "task"}))
    with pytest.raises(ValidationError, match=r"presel needs params\.irs"):
        Spec.model_validate(spec("presel", {"embedding"}, params={}))
    with pytest.raises(ValidationError, match="presel needs groups"):
        Spec.model_validate(spec("presel", {"embedding"}, groups=None))
    twice = spec("ccs", {"score"})
    with pytest.raises(ValidationError, match="kind of feature is given twice"):
        Spec.model_validate(twice | {"features": twice["features"] * 2})


def test_every_file_of_a_spec_is_found():
    parsed = Spec.model_validate(
        {
            "dataset": {"input": "rows"},
            "features": {"kind": "trajectory", "inputs": ["one", "two"]},
            "budget": {"fraction": 0.1},
        }
    )
    assert [ref for _, ref in input_refs(parsed)] == ["rows", "one", "two"]
    with_model = Spec.model_validate(
        {
            "dataset": {"input": "rows", "format": "webdataset", "images": "pictures"},
            "model": {"name": "proxy"},
            "budget": {"fraction": 0.1},
        }
    )
    assert [ref for _, ref in input_refs(with_model)] == ["rows", "pictures"]
    assert ("/model/name", "proxy") in references(with_model)


def test_the_declaration_is_light_and_its_example_is_valid():
    code = "import methods.select_subset.spec, sys; print('numpy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
    Spec.model_validate(JOB.example)
    schema = Spec.model_json_schema()
    jsonschema.Draft202012Validator(schema).validate(JOB.example)
    listed = JOB.example | {"features": [JOB.example["features"]]}
    jsonschema.Draft202012Validator(schema).validate(listed)
    assert json.dumps(schema)
