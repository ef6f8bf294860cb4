"""synthesize-text through the service: parts, files as inputs, the ledger in Postgres."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datassay import Client, InvalidSpec

from infra.settings import Settings
from methods.synthesize_text.result import Result
from tests import services
from tests.methods.synthesize_text import grammar

SMALL = {"per_label": 8, "params": {"over_sample": 2}}


@pytest.fixture
def settings(service_settings: Settings) -> Settings:
    models = {"grammar": {"path": grammar.model_folder()}}
    return service_settings.model_copy(update={"models": models})


def spec(**more: Any) -> dict[str, Any]:
    return grammar.request(**SMALL, **more) | {"model": "grammar"}


def finished(client: Client, work: services.Workplace, given: dict[str, Any]) -> Any:
    job = client.jobs.create("synthesize-text", given)
    work.run()
    assert job.refresh().succeeded, job.error
    return job


def test_texts_of_one_job_are_the_input_of_another(
    acme: Client, work: services.Workplace, tmp_path: Path
) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in grammar.rows(20)))
    uploaded = acme.files.upload(path).id
    first = finished(acme, work, spec(texts={"input": uploaded}))
    result = Result.model_validate(first.result().data)
    assert [label.kept for label in result.labels] == [8, 8]
    assert result.work.restored == 0
    listed = acme.jobs.get(first.id)
    assert listed.headline is not None
    assert {one["key"] for one in listed.headline} >= {"kept", "distance"}
    train = result.artifacts["train.jsonl"]
    again = finished(acme, work, spec(texts={"input": train.id}, holdout=0.25))
    second = Result.model_validate(again.result().data)
    assert [label.real + label.held_out for label in second.labels] == [8, 8]
    # All but the targets is the same, whatever real texts it is held against.
    assert second.work.restored == second.work.parts - 2


def test_releases_are_added_up_for_their_owner_and_outlive_the_jobs(
    acme: Client, work: services.Workplace, settings: Settings
) -> None:
    private = {"epsilon": 2.0, "delta": 1e-4, "subspace": 8}
    job = finished(acme, work, spec(privacy=private))
    once = Result.model_validate(job.result().data).privacy
    assert once is not None
    assert once.epsilon_total == pytest.approx(2.0, rel=1e-6)
    same = finished(acme, work, spec(privacy=private, filter={"dedupe": False}))
    again = Result.model_validate(same.result().data).privacy
    assert again is not None
    assert [one.reused for one in again.releases] == [True, True]
    assert again.epsilon_total == once.epsilon_total
    for one in (job, same):
        acme.jobs.delete(one.id)
    more = finished(acme, work, spec(privacy={**private, "epsilon": 1.0}))
    summed = Result.model_validate(more.result().data).privacy
    assert summed is not None
    assert 2.0 < summed.epsilon_total < 3.0
    assert [one.releases for one in summed.releases] == [2, 2]
    listed = list(acme.privacy_releases())
    assert len(listed) == 4
    assert [one.id for one in listed] == sorted((one.id for one in listed), reverse=True)
    assert len({one.data_set for one in listed}) == 2
    assert sum(one.rho for one in listed[:2]) < sum(one.rho for one in listed[2:])
    with services.client(acme.base_url, settings, "other") as stranger:
        assert list(stranger.privacy_releases()) == []


def test_a_wrong_request_is_refused_at_once(acme: Client) -> None:
    for more, pointer in (
        ({"template": "{text} is {word}."}, "/template"),
        ({"privacy": {"epsilon": 1, "delta": 1e-4}, "evaluate": {}}, "/privacy"),
    ):
        with pytest.raises(InvalidSpec) as error:
            acme.jobs.create("synthesize-text", spec(**more))
        assert [fault.pointer for fault in error.value.errors] == [f"/spec{pointer}"]
