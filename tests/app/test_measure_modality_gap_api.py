"""measure-modality-gap through the service: uploads, a model, moments that a later job merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datassay import Client, InvalidSpec

from infra.settings import Settings
from methods.measure_modality_gap.result import Result
from tests import services
from tests.methods.measure_modality_gap.test_states import WORDS, pairs
from tests.toys import tiny_llava


@pytest.fixture
def settings(service_settings: Settings, tmp_path: Path) -> Settings:
    tiny_llava.save(tmp_path / "llava", WORDS)
    models = {"llava": {"path": str(tmp_path / "llava")}}
    return service_settings.model_copy(update={"models": models})


def result(client: Client, work: services.Workplace, spec: dict[str, Any]) -> Result:
    job = client.jobs.create("measure-modality-gap", spec)
    work.run()
    assert job.refresh().succeeded, job.error
    return Result.model_validate(job.result().data)


@pytest.mark.timeout(300)
def test_states_a_model_and_moments(acme: Client, work: services.Workplace, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "s.npz", v=rng.normal(size=(90, 32)) * 3, t=rng.normal(size=(80, 32)))
    file = acme.files.upload(tmp_path / "s.npz").id
    sides = {
        side: {"inputs": [file], "arrays": {"1": side[0].replace("i", "v")}}
        for side in ("image", "text")
    }
    subjects = [{"name": "states", "representations": sides}, {"name": "llava", "model": "llava"}]
    asked = {"subjects": subjects, "pairs": {"rows": pairs()}, "permutations": 5}
    first = result(acme, work, asked)
    assert [one.mir_exact.layers for one in first.subjects] == [[1], [1, 2]]
    moments = [first.artifacts[f"moments-{place}.npz"].id for place in (1, 2)]
    again = [{"name": "again", "moments": [moments[1]]}]
    second = result(acme, work, {"subjects": again})
    value = first.subjects[1].mir_exact.value
    assert second.subjects[0].mir_exact.value == pytest.approx(value, rel=1e-9)
    job = acme.jobs.create(
        "measure-modality-gap", {"subjects": [{"name": "mixed", "moments": moments}]}
    )
    work.run()
    assert job.refresh().error is not None
    assert "has the layers [0, 1, 2]" in job.error.message


def test_a_model_without_pairs_is_refused_at_once(acme: Client) -> None:
    with pytest.raises(InvalidSpec, match="needs pairs"):
        acme.jobs.create("measure-modality-gap", {"subjects": [{"name": "m", "model": "llava"}]})
