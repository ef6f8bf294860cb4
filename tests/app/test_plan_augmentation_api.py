"""plan-augmentation through the service, and its augmented set as another job's data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datassay import Client

from infra.settings import Settings
from methods.plan_augmentation.result import Result
from tests import services
from tests.methods.plan_augmentation.test_job import TRAIN, digits


@pytest.fixture
def settings(service_settings: Settings) -> Settings:
    return service_settings


def finished(acme: Client, work: services.Workplace, kind: str, spec: dict[str, Any]) -> Any:
    job = acme.jobs.create(kind, spec)
    work.run()
    assert job.refresh().succeeded, job.error
    return job.result().data


@pytest.mark.timeout(300)
def test_an_augmented_set_is_a_data_set(
    acme: Client, work: services.Workplace, tmp_path: Path
) -> None:
    digits(tmp_path, 120)
    file = acme.files.upload(tmp_path / "digits.npz").id
    spec = {
        "dataset": {"name": "custom", "files": [file]},
        "mode": "generate",
        "factor": 2,
        "generator": {**TRAIN, "steps": 20},
        "early": {"epochs": 2, "of": 10},
        "evaluate": {"epochs": 3, "runs": 2, "arms": ["plain", "targeted", "spread"]},
    }
    found = Result.model_validate(finished(acme, work, "plan-augmentation", spec))
    assert found.plan.rows == 120
    assert [one.arm for one in found.evaluation] == ["plain", "targeted", "spread"]
    augmented = found.artifacts["augmented.npz"].id
    again = {"dataset": {"name": "custom", "files": [augmented]}, "early": {"epochs": 2, "of": 10}}
    second = Result.model_validate(finished(acme, work, "plan-augmentation", again))
    assert second.plan.rows == found.plan.set_size
    made = finished(
        acme,
        work,
        "distill-dataset",
        {"dataset": {"name": "custom", "files": [augmented]}, "ipc": 1, "method": "random"},
    )
    assert made["ipc"] == 1
