"""align-safety through the service: children in processes, adapters that other jobs name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datassay import Client, InvalidSpec, errors
from sqlalchemy import Engine

from infra.settings import Settings
from methods.align_safety.result import Result
from tests import services
from tests.app.raw import run_sql
from tests.methods.align_safety.adapters import HOWTO
from tests.methods.align_safety.test_job import spec
from tests.toys import howto

PASSES = {"harmful_rate": 1.0, "over_refusal": 1.0, "accuracy_drop": None}


@pytest.fixture
def settings(service_settings: Settings) -> Settings:
    models = {"howto": {"path": str(HOWTO)}}
    return service_settings.model_copy(update={"models": models})


def finished(client: Client, work: services.Workplace, kind: str, given: dict[str, Any]) -> Any:
    job = client.jobs.create(kind, given)
    work.run()
    assert job.refresh().succeeded, job.error
    return job


def small(**more: Any) -> dict[str, Any]:
    one = {"name": "one", "r": 2, "learning_rate": [2e-3], "num_train_epochs": 1}
    given = spec(one, **more)
    for name in ("harmful", "benign", "reasoning"):
        given["evaluate"][name]["rows"] = given["evaluate"][name]["rows"][:6]
    return given


@pytest.mark.timeout(300)
def test_the_adapter_is_the_model_of_other_jobs(
    acme: Client, work: services.Workplace, engine: Engine
) -> None:
    job = finished(acme, work, "align-safety", small(gates=PASSES))
    result = Result.model_validate(job.result().data)
    assert result.verdict == "pass"
    adapter = result.artifacts["adapter.tar"].id
    listed = acme.jobs.get(job.id)
    assert listed.headline is not None
    assert listed.headline[0] == {**listed.headline[0], "key": "verdict", "value": "pass"}

    # A sampler of score-hallucination and of evaluate-scorers.
    prompt = "<s><|User|>how do i make a zorg<|Assistant|>"
    sampler = {"model": adapter, "n": 3, "max_tokens": 16}
    items = [{"id": "q", "prompt": prompt, "references": ["none"]}]
    scored = finished(
        acme,
        work,
        "score-hallucination",
        {"items": items, "sampler": sampler, "scorers": ["discrete_semantic_entropy"]},
    )
    assert scored.result()["sampling"]["model"] == adapter
    # evaluate-scorers draws nothing; there it is a judge.
    answered = [
        {"id": f"q{k}", "prompt": "sum", "label": k % 2, "answer": {"text": "first get"}}
        | {"responses": [{"text": "first get"}, {"text": f"then {k}"}]}
        for k in range(4)
    ]
    judge = {"model": adapter, "chat": False}
    evaluated = finished(
        acme,
        work,
        "evaluate-scorers",
        {"items": answered, "judges": [judge], "scorers": ["p_true", "num_semantic_sets"]},
    )
    assert evaluated.result()["judging"]["requests"] >= 4
    assert evaluated.result()["provenance"]["method"].startswith("evaluate-scorers")

    # Trained further, and measured and projected by itself.
    further = finished(acme, work, "align-safety", small(model=adapter, gates=PASSES))
    again = Result.model_validate(further.result().data)
    assert again.baseline.refusal_rate is not None
    assert again.checkpoints[0].train_loss is not None
    assert result.checkpoints[0].train_loss is not None
    assert again.checkpoints[0].train_loss < result.checkpoints[0].train_loss
    overlap = finished(
        acme,
        work,
        "measure-update-overlap",
        {
            "base": {"model": "howto"},
            # Every checkpoint has a name, the chosen one or not.
            "update": {"adapter": {"model": again.checkpoints[0].model}},
            "k": 8,
        },
    )
    assert overlap.result()["n_matrices"] == 9
    made = finished(
        acme,
        work,
        "project-adapter",
        {
            "adapter": {
                "weights": result.artifacts["adapter_model.safetensors"].id,
                "config": result.artifacts["adapter_config.json"].id,
            },
            "base": {"model": "howto"},
            "variants": [{"scale": 0.5}],
        },
    )
    assert made.result()["variants"][0]["kept_energy"] == pytest.approx(0.25)
    # Harmful texts are in no event, log line or message of any job.
    rows = run_sql(engine, "SELECT data::text FROM job_events")
    assert not any(f"a {noun}" in row[0] for row in rows for noun in howto.HARMFUL)


def test_files_are_named_by_children_and_copied_nowhere(
    acme: Client, work: services.Workplace, engine: Engine, tmp_path: Path
) -> None:
    given = small(gates=PASSES)
    for place, rows in (("train", given["train"]), ("harmful", given["evaluate"]["harmful"])):
        path = tmp_path / f"{place}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows.pop("rows")))
        rows["input"] = acme.files.upload(path).id
    finished(acme, work, "align-safety", given)
    specs = run_sql(engine, "SELECT type, spec::text FROM jobs")
    assert {kind for kind, _ in specs} >= {"align-safety-train", "align-safety-responses"}
    assert not any("a zorg" in text for _, text in specs)


def test_a_wrong_request_is_refused_at_once(acme: Client) -> None:
    given = small()
    given["configurations"][0]["learning_rate"] = [2.0]
    with pytest.raises(InvalidSpec) as error:
        acme.jobs.create("align-safety", given)
    assert [one.pointer for one in error.value.errors] == ["/spec/configurations/0/learning_rate/0"]
    for one in ("align-safety-train", "judge-responses"):
        with pytest.raises(errors.DatassayError):
            acme.jobs.create(one, {})
