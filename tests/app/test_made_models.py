"""A model that one job makes is named by another: end to end, and only where that is right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datassay import Client, InvalidSpec, errors
from sqlalchemy import Engine

from infra.settings import Settings
from methods.inference.made_models import MEDIA_TYPE
from server import keys
from tests import services
from tests.app.raw import run_sql
from tests.methods.select_subset.proxied import WORDS, request
from tests.toys import tiny_llava

ITEM = {"id": "q", "prompt": "what is it"}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_llava.save(tmp_path_factory.mktemp("llava"), WORDS, hidden=16))


@pytest.fixture
def settings(service_settings: Settings, llava: str) -> Settings:
    return service_settings.model_copy(
        update={"models": {"llava": {"path": llava}}, "max_body_bytes": 1_000_000}
    )


@pytest.fixture
def acme(engine: Engine, settings: Settings) -> Iterator[tuple[Client, str]]:
    with services.serve(settings) as url:
        yield services.client(url, settings), url


def tuned(client: Client, work: services.Workplace, **more: Any) -> dict[str, Any]:
    """The artifact with a proxy that select-subset has fine-tuned."""
    spec = request("llava", **more) | {"output": {"what": ["indices", "model"]}}
    job = client.jobs.create("select-subset", spec)
    work.run()
    assert job.refresh().succeeded, job.error
    artifact: dict[str, Any] = job.result()["artifacts"]["model"]
    return artifact | {"job": job.id}


def sampled(client: Client, model: str) -> dict[str, Any]:
    sampler = {"model": model, "n": 3, "max_tokens": 5, "greedy_answer": True}
    return {"items": [ITEM], "scorers": ["discrete_semantic_entropy"], "sampler": sampler}


def test_a_tuned_proxy_answers_in_score_hallucination(
    acme: tuple[Client, str], work: services.Workplace, settings: Settings, engine: Engine
) -> None:
    client, _ = acme
    artifact = tuned(client, work)
    assert artifact["media_type"] == MEDIA_TYPE
    used = client.usage()["stored_bytes"].used
    assert used >= artifact["size"], "a model counts against the quota"
    job = client.jobs.create("score-hallucination", sampled(client, artifact["id"]))
    assert run_sql(engine, f"SELECT inputs FROM jobs WHERE id = '{job.id}'")[0][0] == [
        {"pointer": "/spec/sampler/model", "id": artifact["id"], "sha256": artifact["sha256"]}
    ]
    with pytest.raises(errors.Conflict, match=f"needs {artifact['id']}"):
        client.jobs.delete(artifact["job"])
    work.run()
    assert job.refresh().succeeded, job.error
    result = job.result()
    assert result["sampling"]["model"] == artifact["id"]
    [block] = [block for block in result["blocks"] if block["kind"] == "samples"]
    [sample] = block["samples"]
    assert sum(len(group["texts"]) for group in sample["groups"]) == 3
    # Equal bytes are one model, whatever their id; the untouched model answers otherwise.
    again = client.jobs.create("score-hallucination", sampled(client, artifact["id"]), wait=5)
    assert again.cache is not None
    assert again.cache.hit_of == job.id
    other = client.jobs.create("score-hallucination", sampled(client, "llava"))
    work.run()
    assert other.refresh().cache is not None
    assert other.cache is not None
    assert other.cache.hit_of is None
    client.jobs.delete(artifact["job"])
    with pytest.raises(InvalidSpec, match="there is no model"):
        client.jobs.create("score-hallucination", sampled(client, artifact["id"]))


def test_a_tuned_proxy_is_tuned_further_and_read_by_children(
    acme: tuple[Client, str], work: services.Workplace
) -> None:
    client, _ = acme
    first = tuned(client, work)
    spec = request(first["id"]) | {"output": {"what": ["indices"]}}
    job = client.jobs.create("select-subset", spec)
    work.run()
    assert job.refresh().succeeded, job.error
    before = client.jobs.result(first["job"])["proxy"]["losses"]
    after = job.result()["proxy"]["losses"]
    assert after[0] < before[0], "it goes on where the first training ended"


def test_only_ones_own_models_and_only_models(
    acme: tuple[Client, str], work: services.Workplace, settings: Settings, tmp_path: Path
) -> None:
    client, url = acme
    artifact = tuned(client, work)
    token = keys.create(settings, "stranger", "k", ["admin"])
    with Client(url, token) as stranger, pytest.raises(InvalidSpec, match="there is no model"):
        stranger.jobs.create("score-hallucination", sampled(stranger, artifact["id"]))
    indices = client.jobs.result(artifact["job"])["artifacts"]["indices"]["id"]
    with pytest.raises(InvalidSpec, match="is not a model that a job made"):
        client.jobs.create("score-hallucination", sampled(client, indices))
    with pytest.raises(InvalidSpec, match="There is no model"):
        client.jobs.create("score-hallucination", sampled(client, "art_1"))
    spec = request("llava") | {"output": {"what": ["model"]}}
    spec["model"] = spec["model"] | {"fine_tune": None}
    with pytest.raises(InvalidSpec, match="needs a model that is fine-tuned"):
        client.jobs.create("select-subset", spec)


def test_the_archive_is_read_by_transformers(
    acme: tuple[Client, str], work: services.Workplace, tmp_path: Path
) -> None:
    import tarfile

    from transformers import AutoModelForImageTextToText, AutoProcessor

    client, _ = acme
    artifact = tuned(client, work)
    [found] = [
        a for a in client.jobs.get(artifact["job"]).artifacts() if a.record.name == "model.tar"
    ]
    with tarfile.open(found.download(tmp_path / "model.tar")) as archive:
        archive.extractall(tmp_path / "model", filter="data")
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "model") is not None
    assert AutoProcessor.from_pretrained(tmp_path / "model") is not None
