"""The whole job on a tiny model of two grammars: real training, real gradients, real texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from methods.errors import JobError, ShuttingDown
from methods.inference.model_registry import ModelDeclaration, Models
from methods.local import LocalContext
from methods.synthesize_text.job import run
from methods.synthesize_text.optimisation import admm
from methods.synthesize_text.result import Result
from methods.synthesize_text.spec import Spec
from tests.methods.synthesize_text.grammar import (
    ADJECTIVES,
    LABELS,
    model_folder,
    request,
    rows,
    sentences,
)
from tests.toys.fake_llm import FakeLLM, serving

QUICK = {"outer_steps": 3, "inner_steps": 10, "top_k": 20}


def made(folder: Path, children: Path | None = None, **more: Any) -> Result:
    spec = Spec.model_validate(request(**more))
    return run(spec, LocalContext(folder, spec, children=children))


def lines(folder: Path, name: str = "texts.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "artifacts" / name).read_text().splitlines()]


def refused(folder: Path, code: str, **more: Any) -> JobError:
    with pytest.raises(JobError) as error:
        made(folder, **more)
    assert error.value.code == code, error.value.message
    return error.value


@pytest.fixture(scope="module")
def selected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("selected")
    return made(folder), folder


def test_chosen_texts_are_nearer_than_unselected_and_these_than_random(
    selected: tuple[Result, Path],
) -> None:
    result, _ = selected
    for label in result.labels:
        sets = label.distance
        assert sets.unselected is not None
        assert sets.random_vocabulary is not None
        assert sets.kept is not None
        assert sets.kept < sets.unselected < sets.random_vocabulary
        assert (label.kept, label.drawn) == (20, 160)
        assert sum(label.dropped_by.values()) + label.kept == label.drawn


def test_every_text_says_why_it_was_kept_or_not(selected: tuple[Result, Path]) -> None:
    result, folder = selected
    rows_ = lines(folder)
    assert len(rows_) == sum(label.drawn for label in result.labels)
    for label in result.labels:
        own = [row for row in rows_ if row["label"] == label.name]
        kept = [row for row in own if row["kept"]]
        assert len(kept) == label.kept
        assert {row["drop_reason"] for row in own} == {None, *label.dropped_by}
        assert all((row["drop_reason"] is None) == row["kept"] for row in own)
        assert np.median([row["distance"] for row in kept]) == label.median_distance.kept
        assert np.isclose(np.mean([row["log_loss"] for row in kept]), label.log_loss)
    train = lines(folder, "train.jsonl")
    assert [row["label"] for row in train[:4]] == ["negative", "positive"] * 2
    first = train[0]
    assert first["prompt"] + first["completion"] == f"{first['text']} It was bad"


def test_labels_stand_in_the_texts(selected: tuple[Result, Path]) -> None:
    """The words of the other grammar hardly occur in a label's texts."""
    kept, strays = lines(selected[1], "train.jsonl"), 0
    for row in kept:
        word = {label["name"]: label["word"] for label in LABELS}[row["label"]]
        other = {"great": "bad", "bad": "great"}[word]
        strays += bool(set(row["text"].split()) & set(ADJECTIVES[other]))
    assert strays <= len(kept) / 10


def test_no_copy_goes_unreported(selected: tuple[Result, Path]) -> None:
    result, folder = selected
    real = {" ".join(re.findall(r"\w+", row["text"].lower())) for row in rows(40)}
    copies = [
        row
        for row in lines(folder, "train.jsonl")
        if " ".join(re.findall(r"\w+", row["text"].lower())) in real
    ]
    assert result.leakage is not None
    assert result.leakage.used.exact + result.leakage.control.exact == len(copies)
    assert result.leakage.used.texts == result.leakage.control.texts == 40
    area = result.leakage.membership_auc
    assert area.low is not None
    assert area.high is not None
    assert 0 < area.low < (area.value or 0) < area.high < 1
    assert 0.2 < (area.value or 0) < 0.8, "nothing was aimed at single texts"


def test_starting_from_real_texts_would_be_seen(tmp_path: Path) -> None:
    """Texts that are the used ones give themselves away; the control half does not."""
    from methods.synthesize_text.outcome import leakage
    from methods.synthesize_text.texts.inputs import split_texts

    spec = Spec.model_validate(request())
    split = split_texts(spec.labelled(), LocalContext(tmp_path, spec))
    used, held = split.used[0], split.held[0]
    found, _, _ = leakage.report(
        used, list(range(20)), used, split.used_rows[0], held, np.random.default_rng(0)
    )
    assert found.used.exact == 20
    assert found.control.exact == 0
    assert found.membership_auc.value == 1.0
    assert found.copying_auc.low is not None
    assert found.copying_auc.low > 0.8
    assert {pair.real_row for pair in found.nearest} <= set(split.used_rows[0])


def test_gradmm_ends_no_farther_than_it_starts(tmp_path: Path) -> None:
    result = made(tmp_path, method="gradmm", params=QUICK)
    for label in result.labels:
        steps = [curve.tokens for curve in result.curves if curve.label == label.name]
        first = steps[0]
        assert first is not None
        best = np.min([step for step in steps if step is not None], axis=0)
        assert (best <= np.array(first) + 1e-9).all()
        noise = label.distance.noise_target
        assert noise is not None
        assert label.distance.kept is not None
        assert label.distance.kept < noise
        assert label.drawn == 40, "whole stacks, whose surplus stands in for dropped texts"
    assert {block.title for block in result.blocks if block.kind == "figure"} >= {
        "Distance while optimising"
    }


def test_the_published_method_runs_and_reports_its_controls(tmp_path: Path) -> None:
    result = made(
        tmp_path,
        method="gradmm-reference",
        params={"outer_steps": 2, "inner_steps": 3, "top_k": 8, "group_size": 4},
        filter={"classifier": False},
        per_label=4,
    )
    for label in result.labels:
        assert label.distance.noise_target is not None
        assert label.kept >= 1


class Killed(LocalContext):
    """Its jobs are told to stop at a chosen report of a phase."""

    def __init__(self, *args: Any, phase: str, at: int, **more: Any) -> None:
        super().__init__(*args, on_progress=self._maybe, **more)
        self._phase, self._left = phase, at

    def _maybe(self, phase: str, *rest: Any) -> None:
        if phase == self._phase:
            self._left -= 1
            if self._left == 0:
                raise ShuttingDown


@pytest.mark.parametrize(
    ("phase", "at", "more"),
    [
        ("drawing", 2, {}),
        ("drawing", 7, {}),
        ("scoring", 3, {}),
        ("optimising", 17, {"method": "gradmm", "params": QUICK}),
        ("optimising", 55, {"method": "gradmm", "params": QUICK}),
        ("fine-tuning", 115, {"evaluate": {"steps": 102, "batch_size": 4, "arms": []}}),
    ],
)
def test_a_killed_job_makes_the_same_texts(
    phase: str,
    at: int,
    more: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A checkpoint after every step, and not after half a minute.
    monkeypatch.setattr(admm, "_KEEP_EVERY", 0.0)
    spec = Spec.model_validate(request(**more))
    whole = run(spec, LocalContext(tmp_path / "whole", spec))
    broken = tmp_path / "broken"
    with pytest.raises(ShuttingDown):
        run(spec, Killed(broken, spec, phase=phase, at=at))
    again = run(spec, LocalContext(broken, spec))
    for name in ("texts.jsonl", "train.jsonl"):
        assert (tmp_path / "whole" / "artifacts" / name).read_bytes() == (
            broken / "artifacts" / name
        ).read_bytes()
    assert again.evaluation == whole.evaluation
    assert again.curves == whole.curves


def test_a_second_job_finds_what_the_first_one_made(tmp_path: Path) -> None:
    children = tmp_path / "children"
    first = made(tmp_path / "one", children)
    second = made(tmp_path / "two", children, filter={"classifier": False}, per_label=16)
    assert first.work.restored == 0
    # Both targets, and 128 texts of 160.
    assert second.work.restored >= 2 + 8
    texts = [{row["text"] for row in lines(tmp_path / name)} for name in ("one", "two")]
    assert texts[1] <= texts[0]


def test_more_optimised_texts_are_the_same_and_more(tmp_path: Path) -> None:
    children = tmp_path / "children"
    params = {"outer_steps": 1, "inner_steps": 2, "top_k": 8, "group_size": 4, "candidates": 2}
    for name, count in (("few", 4), ("many", 44)):
        result = made(tmp_path / name, children, method="gradmm", params=params, per_label=count)
        assert result.labels[0].drawn == {"few": 40, "many": 80}[name]
    few, many = ([row["text"] for row in lines(tmp_path / name)] for name in ("few", "many"))
    assert few[:40] == many[:40]
    # The draws, the targets, and both stacks of each label that the first job made.
    assert result.work.restored >= 4 + 2 + 4


def test_without_choice_nothing_is_chosen(tmp_path: Path) -> None:
    none = {"classifier": False, "balance": False, "dedupe": False}
    plain = made(tmp_path / "a", method="lm-sample", filter=none)
    select = made(
        tmp_path / "b", params={"over_sample": 1, "selector": ["gradient-herding"]}, filter=none
    )
    for one, other in zip(plain.labels, select.labels, strict=True):
        assert one.distance.kept == pytest.approx(other.distance.kept, abs=1e-12)
    assert {row["text"] for row in lines(tmp_path / "a")} == {
        row["text"] for row in lines(tmp_path / "b")
    }


def test_lengths(tmp_path: Path) -> None:
    short = [{"text": " ".join(row["text"].split()[:5]), "label": row["label"]} for row in rows(40)]
    result = made(
        tmp_path,
        lengths="as-real",
        texts={"rows": short},
        method="lm-sample",
        filter={"classifier": False},
    )
    assert result.diversity.mean_words <= 5
    assert any("disclose" in warning for warning in result.warnings)


def test_evaluation_compares_the_same_texts(tmp_path: Path) -> None:
    result = made(tmp_path, evaluate={"steps": 20, "lr": 5e-4})
    arms = {arm.arm: arm for arm in result.evaluation}
    assert list(arms) == ["none", "kept", "real", "unselected", "random-vocabulary"]
    assert [len(arm.seeds) for arm in arms.values()] == [1, 3, 3, 3, 3]
    assert {arm.n for name, arm in arms.items() if name != "none"} == {40}
    for one in result.differences:
        value = arms["kept"].accuracy.value, arms[one.than].accuracy.value
        assert None not in value
        assert one.accuracy.value == pytest.approx(np.subtract(*value))


PRIVATE = {"epsilon": 3.0, "delta": 1e-4, "subspace": 8}


def test_a_release_is_made_once_and_added_up(tmp_path: Path) -> None:
    children = tmp_path / "children"
    first = made(tmp_path / "one", children, privacy=PRIVATE)
    again = made(tmp_path / "two", children, privacy=PRIVATE, filter={"classifier": False})
    assert first.privacy is not None
    assert again.privacy is not None
    assert first.leakage is None
    for label in first.labels:
        assert label.distance.held_out_real is label.contrast is None
        assert label.held_out == 0
    for one, two in zip(first.privacy.releases, again.privacy.releases, strict=True):
        assert (one.reused, two.reused) == (False, True)
        assert one.releases == two.releases == 1
        assert one.epsilon_total == pytest.approx(3.0, rel=1e-6)
    other = made(tmp_path / "three", children, privacy={**PRIVATE, "epsilon": 1.0})
    assert other.privacy is not None
    assert other.privacy.releases[0].releases == 2
    assert 3.0 < other.privacy.epsilon_total < 4.0
    assert other.privacy.owner_epsilon_total > other.privacy.epsilon_total


def test_one_record_moves_one_text_of_one_label(tmp_path: Path) -> None:
    """Where a repeated text were left out, one record would move another label's target too."""
    given = rows(10)
    twin = [*given[:-1], {"text": given[0]["text"], "label": "positive"}]
    for k, texts in enumerate((given, twin)):
        result = made(tmp_path / str(k), texts={"rows": texts}, privacy=PRIVATE)
        assert [label.real for label in result.labels] == [10, 10]
        assert not any("repeat an earlier" in warning for warning in result.warnings)


def test_noise_is_no_function_of_the_seed(tmp_path: Path) -> None:
    results = [made(tmp_path / str(k), privacy=PRIVATE, keep_target=True) for k in range(2)]
    targets = [
        np.load(tmp_path / str(k) / "artifacts" / "target-0.npz")["weights"] for k in range(2)
    ]
    assert results[0].privacy is not None
    assert not np.array_equal(*targets)


def test_the_word_private_needs_privacy(selected: tuple[Result, Path]) -> None:
    assert "privat" not in selected[0].model_dump_json(exclude={"privacy"}).lower()


@pytest.mark.parametrize(
    ("more", "where", "text"),
    [
        ({"template": "{text} It was"}, "template", "must contain {word} once"),
        ({"template": "{word} {text}"}, "template", "must end with {word}"),
        ({"template": "It was {word}"}, "template", "must contain {text} once"),
        ({"instruction": "A review:"}, "instruction", "must contain {word}"),
        ({"labels": [LABELS[0], {"name": "x", "word": "bad"}]}, "labels", "'bad' occurs twice"),
        ({"method": "gradmm", "params": {"over_sample": 2}}, "params", "Extra inputs"),
        ({"privacy": PRIVATE, "evaluate": {}}, "privacy", "evaluate reads real texts"),
        ({"privacy": PRIVATE, "lengths": "as-real"}, "privacy", "as-real disclose"),
        ({"privacy": PRIVATE, "method": "lm-sample"}, "privacy", "nothing aims at the target"),
        (
            {"privacy": PRIVATE, "params": {"selector": ["classifier"]}},
            "privacy",
            "nothing aims at the target",
        ),
        ({"holdout": 0, "min_contrast": 2}, "min_contrast", "needs held-out texts"),
        ({"holdout": 0, "evaluate": {}}, "evaluate", "needs held-out texts"),
    ],
)
def test_a_wrong_request_is_told_at_its_field(more: dict[str, Any], where: str, text: str) -> None:
    with pytest.raises(ValidationError) as error:
        Spec.model_validate(request(**more))
    assert any(fault["loc"][0] == where and text in fault["msg"] for fault in error.value.errors())


def _row(change: Callable[[list[dict[str, Any]]], None]) -> dict[str, Any]:
    given: list[dict[str, Any]] = [dict(row) for row in rows(40)]
    change(given)
    return {"rows": given}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda given: given[3].update(text=""), "row 3: text is empty"),
        (lambda given: given[3].update(text=7), "row 3: text is not a string"),
        (lambda given: given[3].pop("text"), "row 3: text is missing"),
        (lambda given: given[3].update(label="fine"), "row 3: label 'fine' is none of the labels"),
        (lambda given: given[3].update(text="x" * 20_001), "row 3: text has 20,001 characters"),
    ],
)
def test_a_bad_row_is_named(
    change: Callable[[list[dict[str, Any]]], None], text: str, tmp_path: Path
) -> None:
    error = refused(tmp_path, "input_invalid", texts=_row(change))
    assert text in error.message
    assert error.details["rows"][0]["row"] == 3


def test_files_as_people_have_them(tmp_path: Path) -> None:
    given = rows(12)
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in given))
    (tmp_path / "array.json").write_text(json.dumps(given, indent=1))
    table = "\ufeffText,Sentiment\r\n" + "".join(
        f'"{row["text"]}",{row["label"]}\r\n' for row in given
    )
    (tmp_path / "table.csv").write_text(table)
    fields = {"text_field": "Text", "label_field": "Sentiment"}
    results = [
        made(tmp_path, texts={"input": name, **more}, method="lm-sample", per_label=4)
        for name, more in (("lines.jsonl", {}), ("array.json", {}), ("table.csv", fields))
    ]
    assert len({result.labels[0].distance.kept for result in results}) == 1
    error = refused(tmp_path, "input_invalid", texts={"input": "table.csv"})
    assert "no column 'label', 'text'" in error.message
    (tmp_path / "torn.csv").write_text('"text,label\nfine,negative\n')
    refused(tmp_path, "input_invalid", texts={"input": "torn.csv"})
    (tmp_path / "deep.json").write_text("[" * 100_000)
    refused(tmp_path, "input_invalid", texts={"input": "deep.json"})
    (tmp_path / "latin.csv").write_bytes("text,label\nd\xe9j\xe0,negative\n".encode("latin-1"))
    assert (
        "line 2 is not UTF-8"
        in refused(tmp_path, "input_invalid", texts={"input": "latin.csv"}).message
    )


def test_repeated_texts_are_in_one_half_only(tmp_path: Path) -> None:
    given = rows(20)
    twins = [{**row, "text": f" {row['text'].upper()} "} for row in given[:10]]
    result = made(tmp_path, texts={"rows": given + twins}, method="lm-sample", per_label=4)
    assert [label.real + label.held_out for label in result.labels] == [20, 20]
    assert "10 real texts repeat an earlier one and were left out." in result.warnings


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        ({"texts": {"rows": rows(6)}}, "input_invalid", "at least 5 must be left"),
        (
            {"labels": [{"name": "negative", "word": "yyy"}, {"name": "positive", "word": "zzz"}]},
            "input_invalid",
            "start with the same token",
        ),
        ({"max_tokens": 200}, "model_rejected_request", "positions"),
        (
            {"method": "gradmm", "params": {**QUICK, "top_k": 5_000}},
            "input_invalid",
            "params.top_k is 5000",
        ),
        ({"min_contrast": 1e9}, "numerical_failure", "below min_contrast"),
        ({"filter": {"max_log_loss": 1e-6}}, "numerical_failure", "was dropped"),
        ({"device": "gpu"}, "model_unavailable", "no GPU"),
        (
            {"texts": {"rows": rows(6)}, "holdout": 0.1, "evaluate": {}},
            "input_invalid",
            "an evaluation needs some",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_says_so(
    more: dict[str, Any], code: str, text: str, tmp_path: Path
) -> None:
    assert text in refused(tmp_path, code, **more).message


def test_a_server_has_no_gradients(tmp_path: Path) -> None:
    models = Models({"remote": ModelDeclaration(base_url="http://localhost:1/v1")})
    spec = Spec.model_validate(request(model="remote"))
    with pytest.raises(JobError, match="needs a model's weights") as error:
        run(spec, LocalContext(tmp_path, spec, models=models))
    assert error.value.code == "model_rejected_request"


def test_a_large_model_on_a_cpu_needs_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from methods.synthesize_text import making

    monkeypatch.setattr(making, "_MOST_ON_CPU", 1_000)
    error = refused(tmp_path / "a", "too_large", method="gradmm", params=QUICK)
    assert error.details["core_hours"] >= 0
    assert "params.max_core_hours" in error.message
    allowed = made(
        tmp_path / "b", method="gradmm", params={**QUICK, "max_core_hours": 1}, per_label=4
    )
    assert allowed.labels[0].drawn == 10, "a stack of one group"


def test_too_many_gradients_are_refused_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from methods.synthesize_text import making

    monkeypatch.setattr(making, "_MOST_BYTES", 100_000)
    error = refused(tmp_path, "too_large")
    assert "Lower per_label or params.over_sample" in error.message


def test_weights_of_16_bits_are_tuned_in_32(tmp_path: Path) -> None:
    """Steps of 1e-5 are below the rounding of most weights in bfloat16."""
    models = Models({"half": ModelDeclaration(path=model_folder(), dtype="bfloat16")})
    spec = Spec.model_validate(
        request(model="half", evaluate={"steps": 5, "batch_size": 4, "lr": 1e-5, "arms": []})
    )
    result = run(spec, LocalContext(tmp_path, spec, models=models))
    assert {arm.arm for arm in result.evaluation} == {"none", "kept"}
    probabilities = [
        np.load(path)["probabilities"]
        for path in sorted((tmp_path / "children").glob("*/artifacts/outcome.npz"))
    ]
    assert len({chances.tobytes() for chances in probabilities}) == 4, "each seed moved it"


def test_a_model_is_shared_and_never_changed(tmp_path: Path) -> None:
    models = Models(any_path=True)
    spec = Spec.model_validate(request(evaluate={"steps": 5, "lr": 1e-2}))
    from methods.synthesize_text.gradients.label_model import load_on_cpu

    before = models.load(model_folder(), load_on_cpu).weight.clone()
    run(spec, LocalContext(tmp_path, spec, models=models))
    assert models.load(model_folder(), load_on_cpu).weight.equal(before)


def test_texts_may_come_from_a_server(tmp_path: Path) -> None:
    llm = FakeLLM()

    def say(body: dict[str, Any]) -> list[str]:
        word = body["prompt"].split()[1]
        return [f" {text}" for text in sentences(word, body["n"], body.get("seed", 0))]

    llm.say = say
    with serving(llm) as url:
        models = Models(
            {
                "remote": ModelDeclaration(base_url=url),
                "grammar": ModelDeclaration(path=model_folder()),
            }
        )
        spec = Spec.model_validate(
            request(model="grammar", generator={"model": "remote", "stop": ["\n"]})
        )
        result = run(spec, LocalContext(tmp_path, spec, models=models))
    assert [label.kept for label in result.labels] == [20, 20]
    assert all(label.agreement == 1 for label in result.labels)
    asked = llm.requests
    assert {body["prompt"] for body in asked} == {"A great review :", "A bad review :"}
    assert len({(body["prompt"], body["seed"]) for body in asked}) == len(asked), "seeds differ"
    assert {(body["max_tokens"], tuple(body["stop"])) for body in asked} == {(20, ("\n",))}
    assert not any("written by the model" in warning for warning in result.warnings)


def test_empty_answers_are_counted(tmp_path: Path) -> None:
    llm = FakeLLM()
    llm.say = lambda body: [" ...", *(["a film name3 was so warm ."] * (body["n"] - 1))]
    with serving(llm) as url:
        models = Models(
            {
                "remote": ModelDeclaration(base_url=url),
                "grammar": ModelDeclaration(path=model_folder()),
            }
        )
        spec = Spec.model_validate(
            request(
                model="grammar",
                generator={"model": "remote"},
                method="lm-sample",
                filter={"classifier": False},
            )
        )
        result = run(spec, LocalContext(tmp_path, spec, models=models))
        label = result.labels[0]
        assert label.dropped_by == {"duplicate": 19, "empty": 1}
        assert (label.drawn, label.kept) == (21, 1)
        llm.say = lambda body: ["..."] * body["n"]
        again = Spec.model_validate(spec.model_dump(mode="json") | {"seed": 1})
        with pytest.raises(JobError, match="are empty: the generator writes nothing"):
            run(again, LocalContext(tmp_path, again, models=models))
