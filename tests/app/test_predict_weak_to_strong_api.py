"""predict-weak-to-strong through a real gateway, Postgres and a spawned worker process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datassay import Client, errors

from methods.predict_weak_to_strong.result import Result
from tests.methods.predict_weak_to_strong.test_job import (
    REPRESENTATIONS,
    check_spearman_figures,
    digits_request,
)
from tests.services import Workplace


@pytest.fixture(autouse=True)
def one_thread_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's child inherits it; small matrices on a busy machine want no more."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


def finished(api: Client, workplace: Workplace, spec: dict[str, Any]) -> Result:
    job = api.jobs.create("predict-weak-to-strong", spec)
    assert workplace.run() == 1
    return Result.model_validate(job.refresh().result().data)


def test_stored_correlations_through_the_api(api: Client, workplace: Workplace) -> None:
    """The Spearman figures of the digits models, from the uploaded representations."""
    file = api.files.upload(REPRESENTATIONS).id
    spec = digits_request()
    for model in (spec["strong"], *spec["weak"]):
        model["representations"] = file
    check_spearman_figures(finished(api, workplace, spec))
    api.files.delete(file)


def test_a_named_model_through_the_api(api: Client, workplace: Workplace, tmp_path: Path) -> None:
    subjects, verbs = ("cats", "banks", "rivers", "judges"), ("like", "fear", "follow", "ignore")
    objects = ("music", "rain", "old laws", "new money")
    texts = [f"The {a} {b} {c}." for a in subjects for b in verbs for c in objects]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    spec = {
        "texts": api.files.upload(path).id,
        "strong": {"name": "last", "model": "minilm", "pooling": "mean"},
        "weak": [{"name": "third", "model": "minilm", "layer": 3, "pooling": "mean"}],
    }
    result = finished(api, workplace, spec)
    assert result.n_used == 64
    assert result.strong.encoding is not None
    assert (result.strong.encoding.model, result.strong.encoding.layer) == ("minilm", 6)
    assert result.weak[0].metric_fro > 0
    spec["weak"] = [{"name": "w", "model": "gpt-9"}]
    with pytest.raises(errors.InvalidSpec, match="There is no model 'gpt-9'; known: minilm, tiny"):
        api.jobs.create("predict-weak-to-strong", spec)
    api.files.delete(spec["texts"])
