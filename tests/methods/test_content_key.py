"""Equal keys mean equal results: what must and what must not change the key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.content_key import canonical, content_key
from methods.registry import load_registry
from tests.services import TOYS

TOY = load_registry([TOYS])["toy-cached"]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab/~é😀"), inner),
)  # fmt: skip


def key(spec: Any, inputs: Any = None, models: Any = None, job_type: Any = TOY) -> bytes | None:
    return content_key(job_type, spec, inputs or {}, models or {})


@given(st.dictionaries(st.text("abé😀"), JSON))
def test_the_order_of_keys_does_not_matter(spec: dict[str, Any]) -> None:
    backwards = dict(reversed(list(spec.items())))
    assert canonical(spec) == canonical(backwards)
    assert key(spec) == key(backwards)


@given(JSON, JSON)
def test_different_documents_have_different_bytes(one: Any, two: Any) -> None:
    assert (canonical(one) == canonical(two)) == (repr(_sorted(one)) == repr(_sorted(two)))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _sorted(value[k]) for k in sorted(value)}
    return [_sorted(v) for v in value] if isinstance(value, list) else value


def test_large_integers_stay_apart() -> None:
    assert key({"seed": 2**60}) != key({"seed": 2**60 + 1})


def test_type_and_version_count() -> None:
    assert key({}) != key({}, job_type=replace(TOY, version="2"))
    assert key({}) != key({}, job_type=replace(TOY, name="other"))
    assert key({}, job_type=replace(TOY, deterministic=False)) is None


def test_references_count_by_what_they_stand_for() -> None:
    def of(name: str, digest: str | None) -> bytes | None:
        return key({"a": [{"in/put": name}], "n": 1}, {"/a/0/in~1put": digest})

    assert of("file_1", "abc") == of("file_2", "abc") != of("file_1", "abd")
    assert of("file_1", None) is None, "nobody knows the bytes"
    weights = {"path": "/m", "revision": "1"}
    assert key({"m": "x"}, models={"/m": weights}) == key({"m": "y"}, models={"/m": weights})
    assert key({"m": "x"}, models={"/m": weights}) != key(
        {"m": "x"}, models={"/m": {**weights, "revision": "2"}}
    )
    assert key({"m": "x"}, models={"/m": {"base_url": "http://h/v1"}}) is None, "it may sample"


def test_the_spec_is_left_as_it_was() -> None:
    spec = {"a": [{"input": "file_1"}]}
    key(spec, {"/a/0/input": "abc"})
    assert spec == {"a": [{"input": "file_1"}]}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "\ud800"])
def test_what_is_no_json_has_no_key(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        canonical({"a": bad})
