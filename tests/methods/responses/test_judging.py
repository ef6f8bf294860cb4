"""Judges: a sequence classifier, a guard that chats, a grader with a rubric; all really run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from methods.errors import JobError
from methods.inference.model_registry import ModelDeclaration, Models
from methods.local import LocalContext
from methods.responses.judging.judge import judge
from methods.responses.schema import ClassifierJudge, RubricJudge
from tests.methods.align_safety.adapters import HOWTO
from tests.toys import howto, tiny_judge
from tests.toys.fake_llm import FakeLLM, serving

PAIRS = [
    (howto.question("make", "zorg"), howto.REFUSAL),
    (howto.question("make", "zorg"), howto.helpful("make", "zorg").rpartition("</think> ")[2]),
] * 4


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_judge.save(tmp_path_factory.mktemp("classifier"))


def context(folder: Path, **declared: Any) -> LocalContext:
    models = {name: ModelDeclaration.model_validate(one) for name, one in declared.items()}
    return LocalContext(folder, models=Models(models))


def test_a_sequence_classifier(tmp_path: Path, classifier: str) -> None:
    ctx = context(tmp_path, guard={"path": classifier})
    wanted = ClassifierJudge.model_validate({"kind": "classifier", "model": "guard"})
    found = judge(wanted, PAIRS, ctx)
    assert [one.unsafe for one in found] == [False, True] * 4
    assert [one.raw for one in found[:2]] == ["SAFE", "HARMFUL"]
    named = wanted.model_copy(update={"unsafe_labels": ["SAFE"]})
    assert [one.unsafe for one in judge(named, PAIRS, ctx)] == [True, False] * 4
    unknown = wanted.model_copy(update={"unsafe_labels": ["BAD"]})
    with pytest.raises(JobError, match="'BAD' is none of them"):
        judge(unknown, PAIRS, ctx)


Guard = tuple[str, dict[str, str], list[dict[str, Any]]]


@pytest.fixture
def server() -> Iterator[Guard]:
    """Says what `script` has for a text that the request contains."""
    script: dict[str, str] = {}
    fake = FakeLLM()

    def say(body: dict[str, Any]) -> list[str]:
        text = body["messages"][-1]["content"]
        return [next((said for key, said in script.items() if key in text), "I cannot judge")]

    fake.say = say
    with serving(fake) as url:
        yield url, script, fake.requests


def test_a_guard_that_chats_sees_the_conversation(tmp_path: Path, server: Guard) -> None:
    url, script, seen = server
    script |= {"help with": "\n\nsafe", "first get": "unsafe\nS2"}
    ctx = context(tmp_path, guard={"base_url": url})
    wanted = ClassifierJudge.model_validate({"kind": "classifier", "model": "guard"})
    found = judge(wanted, PAIRS, ctx)
    assert [one.unsafe for one in found] == [False, True] * 4
    assert [turn["role"] for turn in seen[0]["messages"]] == ["user", "assistant"]
    assert seen[0]["temperature"] == 0


@pytest.mark.parametrize(
    ("said", "unsafe"),
    [
        ("Safety: Unsafe\nCategories: Violent", True),
        ("UNSAFE", True),
        ("Safety: Safe", False),
        ("not safe", True),
        ("safe", False),
    ],
)
def test_a_guard_in_whatever_capitals(
    tmp_path: Path, server: Guard, said: str, unsafe: bool
) -> None:
    url, script, _ = server
    script["help"] = said
    ctx = context(tmp_path, guard={"base_url": url})
    wanted = ClassifierJudge.model_validate({"kind": "classifier", "model": "guard"})
    assert judge(wanted, PAIRS[:1], ctx)[0].unsafe is unsafe


def test_labels_that_go_together_need_names(tmp_path: Path) -> None:
    from methods.responses.judging.sequence_classifier import _unsafe

    wanted = ClassifierJudge.model_validate({"kind": "classifier", "model": "toxic"})
    names = ["toxic", "severe_toxic", "obscene", "threat"]
    with pytest.raises(JobError, match="name them in unsafe_labels"):
        _unsafe(wanted, names, together=True)
    named = wanted.model_copy(update={"unsafe_labels": ["obscene", "threat"]})
    assert _unsafe(named, names, together=True) == {"obscene", "threat"}


def test_a_rubric_is_read_and_scored(tmp_path: Path, server: Guard) -> None:
    url, script, _ = server
    script |= {
        "can not help": '{"refusal": 1, "convincingness": 1, "specificity": 1}',
        "first get": "refusal: 0, convincingness: 5\nspecificity: 4",
    }
    ctx = context(tmp_path, grader={"base_url": url})
    wanted = RubricJudge.model_validate({"kind": "rubric", "model": "grader"})
    found = judge(wanted, PAIRS, ctx)
    assert [one.score for one in found[:2]] == [0.0, 7 / 8]
    assert [one.unsafe for one in found[:2]] == [False, True]


@pytest.mark.parametrize("kind", ["classifier", "rubric"])
def test_a_judge_that_says_nothing_readable_ends_the_job(
    tmp_path: Path, kind: str, server: Guard
) -> None:
    url, script, _ = server
    script |= {"can not help": "safe" if kind == "classifier" else "refusal 9"}
    ctx = context(tmp_path, one={"base_url": url})
    model: Any = ClassifierJudge if kind == "classifier" else RubricJudge
    with pytest.raises(JobError, match="cannot be read") as error:
        judge(model.model_validate({"kind": kind, "model": "one"}), PAIRS, ctx)
    assert error.value.code == "model_rejected_request"
    assert 1 <= len(error.value.details["examples"]) <= 3


def test_a_chat_model_of_this_process_judges(tmp_path: Path) -> None:
    """A model that never says either word: what it says is shown."""
    ctx = context(tmp_path, howto={"path": str(HOWTO)})
    wanted = ClassifierJudge.model_validate({"kind": "classifier", "model": "howto"})
    with pytest.raises(JobError, match="cannot be read"):
        judge(wanted, PAIRS[:2], ctx)
