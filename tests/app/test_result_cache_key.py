"""Equal keys mean equal results: what must and what must not change the key of a result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.services.result_cache import ResultCache
from methods.inference.model_registry import declarations
from methods.registry import load_registry
from tests.services import TOYS

TOY = load_registry([TOYS])["toy-cached"]
FILE, SAME, OTHER = (f"file_{n:032x}" for n in range(3))
MODELS = {
    "weights": {"path": "/m"},
    "newer": {"path": "/m", "revision": "2"},
    "served": {"base_url": "http://localhost:1/v1"},
}


def key(
    spec: dict[str, Any], inputs: Any = (), job_type: Any = TOY, models: Any = None
) -> bytes | None:
    reuse = ResultCache(declarations(models or MODELS))
    return reuse.key(job_type, job_type.spec.model_validate(spec), inputs)


def reading(file_id: str, digest: str | None) -> bytes | None:
    entry = {"pointer": "/spec/input", "id": file_id}
    return key({"input": file_id}, [entry if digest is None else {**entry, "sha256": digest}])


def test_defaults_are_part_of_the_spec() -> None:
    assert key({}) == key({"steps": 1}) != key({"steps": 2})


def test_type_and_version_count() -> None:
    assert key({}) != key({}, job_type=replace(TOY, version="2"))
    assert key({}) != key({}, job_type=replace(TOY, name="other"))
    assert key({}, job_type=replace(TOY, deterministic=False)) is None


def test_inputs_count_by_their_bytes() -> None:
    assert reading(FILE, "abc") == reading(SAME, "abc") != reading(OTHER, "abd")
    assert reading(FILE, None) is None, "nobody knows the bytes"


def test_models_count_by_what_their_names_stand_for() -> None:
    weights = key({"model": "weights"})
    assert weights is not None
    assert weights != key({"model": "newer"})
    changed = {"weights": {"path": "/m", "dtype": "float16"}}
    assert weights != key({"model": "weights"}, models=changed)
    assert key({"model": "served"}) is None, "a server may sample"
