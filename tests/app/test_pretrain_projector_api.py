"""pretrain-projector through the service: children, and a projector that another job takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datassay import Client, InvalidSpec

from infra.settings import Settings
from methods.measure_modality_gap.result import Result as GapResult
from methods.pretrain_projector.result import Result
from tests import services
from tests.methods.pretrain_projector import worlds
from tests.toys import howto, scenes


@pytest.fixture
def settings(service_settings: Settings, tmp_path: Path) -> Settings:
    models = {"llava": {"path": str(worlds.untrained(tmp_path / "llava"))}}
    return service_settings.model_copy(update={"models": models})


def finished(acme: Client, work: services.Workplace, kind: str, spec: dict[str, Any]) -> Any:
    job = acme.jobs.create(kind, spec)
    work.run()
    assert job.refresh().succeeded, job.error
    return job.result().data


@pytest.mark.timeout(300)
def test_a_projector_is_a_model(acme: Client, work: services.Workplace) -> None:
    safety = {
        "harmful": worlds.prompts(howto.HARMFUL[:4], 1),
        "conditions": ["blank", "image"],
        "max_tokens": 4,
    }
    spec = worlds.small("llava", safety=safety)
    first = Result.model_validate(finished(acme, work, "pretrain-projector", spec))
    assert [one.weight for one in first.runs] == [0.0, 1.0]
    # Another weight computes no features again and trains no baseline.
    spec["penalty"] = {"weight": [1.0, 3.0]}
    second = Result.model_validate(finished(acme, work, "pretrain-projector", spec))
    assert [one.weight for one in second.runs] == [0.0, 1.0, 3.0]
    assert second.parts - second.restored == 1 + 2
    assert second.runs[1].caption_loss == first.runs[1].caption_loss
    subjects = [{"name": "new", "model": second.runs[2].model.id}]
    rows = scenes.captions(8)
    gap = finished(
        acme, work, "measure-modality-gap", {"subjects": subjects, "pairs": {"rows": rows}}
    )
    assert GapResult.model_validate(gap).subjects[0].layers[0].layer == 0


def test_parts_are_no_jobs(acme: Client) -> None:
    with pytest.raises(InvalidSpec):
        acme.jobs.create("pretrain-projector", {"model": "llava"})
    for kind in ("pretrain-projector-run", "pretrain-projector-features", "image-text-answers"):
        with pytest.raises(Exception, match=kind):
            acme.jobs.create(kind, {})
