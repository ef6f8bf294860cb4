"""Inputs by URI through gateway, worker and a real web server."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from datassay import Client, InvalidSpec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from sqlalchemy import Engine, text

from infra.outbound_settings import Credential, Source
from infra.settings import Settings
from methods.errors import JobCancelled, JobError
from tests import services
from tests.services import Workplace
from tests.web import Answer, Request, Web, serve_web
from workers.runtime import inputs
from workers.runtime.inputs import Fetcher

KINDS = ["toy", "toy-isolated"]


@pytest.fixture
def web() -> Iterator[Web]:
    with serve_web() as server:
        yield server


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(api: Client, uri: str, kind: str = "toy", **options: Any) -> Any:
    return api.jobs.create(kind, {"action": "read", "input": uri}, **options)


def stored(engine: Engine, job_id: str) -> list[dict[str, str]]:
    with engine.begin() as connection:
        statement = text("SELECT inputs FROM jobs WHERE id = :id")
        found: list[dict[str, str]] = connection.execute(statement, {"id": job_id}).scalar_one()
        return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_reads_a_uri_and_its_digest_is_recorded(
    api: Client, workplace: Workplace, web: Web, engine: Engine, kind: str
) -> None:
    web.answers["/a.txt?v=1"] = Answer(body=b"from afar")
    uri = f"{web.url}/a.txt?v=1"
    job = read(api, uri, kind)
    assert stored(engine, job.id) == [{"pointer": "/spec/input", "uri": uri}]
    assert web.requests == [], "the gateway fetches nothing"
    workplace.run()
    assert job.refresh().raw_state == "SUCCEEDED", job.error
    assert job.result().data["text"] == "from afar"
    noted = [{"pointer": "/spec/input", "uri": uri, "sha256": sha(b"from afar")}]
    assert job.provenance is not None
    assert job.provenance["inputs"] == noted == stored(engine, job.id)
    assert web.requests[0].headers["authorization"] == "Bearer of-the-operator"
    assert "of-the-operator" not in job.model_dump_json()


def test_a_later_attempt_that_sees_other_bytes_fails(
    api: Client, workplace: Workplace, web: Web, engine: Engine
) -> None:
    web.answers["/"] = Answer(body=b"first")
    job = read(api, web.url + "/")
    with engine.begin() as connection:  # as after a worker that read it and died
        connection.execute(
            text("UPDATE jobs SET inputs = jsonb_set(inputs, '{0,sha256}', to_jsonb(:s ::text))"),
            {"s": sha(b"earlier")},
        )
    workplace.run()
    job.refresh()
    assert job.error is not None
    assert (job.raw_state, job.error.code, job.attempt) == ("FAILED", "input_changed", 1)
    assert job.error.details["pointer"] == "/spec/input"
    assert stored(engine, job.id)[0]["sha256"] == sha(b"earlier")


@pytest.mark.parametrize("kind", KINDS)
def test_the_attempts_of_one_job_compare_their_bytes(
    api: Client, workplace: Workplace, web: Web, kind: str
) -> None:
    """The first attempt reads, then crashes with an error that is tried again."""
    bodies = iter([b"one", b"two"])
    web.answers["/"] = lambda _: Answer(body=next(bodies))
    job = api.jobs.create(kind, {"action": "read-and-crash", "input": web.url + "/"})
    workplace.run()
    job.refresh()
    assert job.error is not None
    assert (job.error.code, job.attempt) == ("input_changed", 2)


def test_a_retried_job_is_held_to_the_bytes_of_the_first(
    api: Client, workplace: Workplace, web: Web
) -> None:
    web.answers["/"] = Answer(body=b"one")
    job = api.jobs.create("toy", {"action": "fail-after-read", "input": web.url + "/"})
    workplace.run()
    web.answers["/"] = Answer(body=b"two")
    again = api.jobs.retry(job.id)
    workplace.run()
    error = again.refresh().error
    assert error is not None
    assert error.code == "input_changed"


def test_children_read_the_bytes_of_their_parent_and_send_no_webhook(
    api: Client, workplace: Workplace, web: Web, engine: Engine
) -> None:
    web.answers |= {"/a": Answer(body=b"from afar"), "/hook": Answer(204)}
    uri = f"{web.url}/a"
    endpoint = api.webhooks.create(f"{web.url}/hook")
    parts = [{"name": name, "input": uri} for name in ("one", "two")]
    job = api.jobs.create("toy-parent", {"parts": parts})
    workplace.run()
    assert job.refresh().raw_state == "SUCCEEDED", job.error
    assert job.result().data["said"] == ["one from afar", "two from afar"]
    with engine.begin() as connection:
        inputs = connection.execute(text("SELECT inputs FROM jobs ORDER BY id")).scalars().all()
    assert [entry["sha256"] for entries in inputs for entry in entries] == [sha(b"from afar")] * 4
    (delivery,) = api.webhooks.deliveries(endpoint.id)
    assert delivery.job_id == job.id


@pytest.mark.parametrize(("digest", "code"), [(sha(b"x"), None), (sha(b"y"), "input_changed")])
def test_a_digest_in_the_reference_is_kept_to(
    api: Client, workplace: Workplace, web: Web, digest: str, code: str | None
) -> None:
    web.answers["/"] = Answer(body=b"x")
    job = read(api, f"{web.url}/#sha256={digest}")
    workplace.run()
    job.refresh()
    assert (job.error.code if job.error else None) == code


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("https://example.org/x", "source"),
        ("s3://sets/other/x", "source"),
        ("s3://k:s@sets/acme/x", "credentials"),
        ("http://u:p@127.0.0.1/x", "credentials"),
        ("http://2130706433/", "host"),
        ("file:///etc/passwd", "source"),
        ("ftp://127.0.0.1/x", "scheme"),
        ("http://127.0.0.1/a#b", "digest"),
    ],
)
def test_a_refusal_names_the_field_and_the_rule(api: Client, uri: str, rule: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        read(api, uri)
    (fault,) = caught.value.problem.errors
    assert fault.pointer == "/spec/input"
    assert f"(rule: {rule})" in fault.message


def test_another_tenant_has_its_own_list(
    gateway_url: str, service_settings: Settings, engine: Engine
) -> None:
    with (
        services.client(gateway_url, service_settings, "other") as other,
        pytest.raises(InvalidSpec, match="rule: source"),
    ):
        read(other, "http://127.0.0.1/x")


def test_the_worker_asks_the_list_again(
    api: Client, service_settings: Settings, workplace: Workplace, web: Web
) -> None:
    job = read(api, web.url + "/")
    workplace.executor._fetcher = Fetcher(service_settings.model_copy(update={"input_sources": []}))
    workplace.run()
    error = job.refresh().error
    assert error is not None
    assert (error.code, error.details["rule"]) == ("input_unreadable", "source")
    assert web.requests == []


def test_a_private_address_is_refused_by_the_worker(api: Client, workplace: Workplace) -> None:
    job = read(api, "http://169.254.169.254/latest/meta-data/")
    workplace.run()
    error = job.refresh().error
    assert error is not None
    assert (error.code, error.details["rule"], job.attempt) == ("input_unreadable", "address", 1)
    assert error.message.startswith("/spec/input: http://169.254.169.254/")


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (503, 3), (429, 3)])
def test_which_answers_are_worth_another_attempt(
    api: Client, workplace: Workplace, web: Web, status: int, attempts: int
) -> None:
    web.answers["/"] = Answer(status)
    job = read(api, web.url + "/")
    workplace.run()
    error = job.refresh().error
    assert error is not None
    assert (error.code, job.attempt) == ("input_unreadable", attempts)
    assert f"answers {status}" in error.message


def fetch(settings: Settings, uri: str, target: Path, **changes: Any) -> str:
    fetcher = Fetcher(settings.model_copy(update=changes))
    return fetcher.fetch("acme", uri, target, lambda: None)


def test_size_and_time_are_limited(service_settings: Settings, web: Web, tmp_path: Path) -> None:
    web.answers["/large"] = Answer(body=b"x" * 101)
    with pytest.raises(JobError) as caught:
        fetch(service_settings, f"{web.url}/large", tmp_path / "a", max_file_bytes=100)
    assert caught.value.code == "too_large"
    web.answers["/slow"] = Answer(body=b"x" * 1000, piece=1, pause=0.05)
    limit = timedelta(seconds=0.3)
    with pytest.raises(JobError, match="took longer than") as caught:
        fetch(service_settings, f"{web.url}/slow", tmp_path / "a", input_timeout=limit)
    assert caught.value.retryable


def test_a_cancelled_job_stops_fetching(
    service_settings: Settings, web: Web, tmp_path: Path
) -> None:
    asked: list[Request] = []

    def hang(request: Request) -> Answer:
        asked.append(request)
        return Answer(body=b"x" * 1000, piece=1, pause=0.05)

    web.answers["/"] = hang

    def check() -> None:
        if asked:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        Fetcher(service_settings).fetch("acme", web.url + "/", tmp_path / "a", check)


class Lake(MemoryFileSystem):  # type: ignore[misc]
    """Stands in for s3fs, which needs a cloud: takes its arguments, holds its files in memory."""

    protocol = "s3"
    store: dict[str, Any] = {}  # noqa: RUF012
    given: list[dict[str, Any]] = []  # noqa: RUF012

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.given.append(options)


@pytest.fixture
def lake(monkeypatch: pytest.MonkeyPatch) -> type[Lake]:
    monkeypatch.setitem(inputs._PACKAGES, "s3", "fsspec")
    monkeypatch.setitem(_registry, "s3", Lake)
    monkeypatch.setattr(Lake, "store", {})
    monkeypatch.setattr(Lake, "given", [])
    return Lake


def test_an_object_store_is_read_with_the_credential_of_its_prefix(
    lake: type[Lake], service_settings: Settings, tmp_path: Path
) -> None:
    lake(skip_instance_cache=True).pipe_file("sets/acme/a b.npz", b"bytes")
    found = fetch(service_settings, "s3://sets/acme/a b.npz", tmp_path / "a")
    assert found == sha(b"bytes")
    assert lake.given[-1] == {"key": "k", "secret": "s", "anon": False}
    with pytest.raises(JobError, match="FileNotFoundError") as caught:
        fetch(service_settings, "s3://sets/acme/none", tmp_path / "a")
    assert (caught.value.code, caught.value.retryable) == ("input_unreadable", False)
    with pytest.raises(JobError) as caught:
        fetch(service_settings, "s3://sets/acme/a b.npz", tmp_path / "a", max_file_bytes=4)
    assert caught.value.code == "too_large"


def test_a_file_of_the_hub_is_read_with_the_token(
    service_settings: Settings, web: Web, tmp_path: Path
) -> None:
    """The real file system of the hub, against a server that speaks as much as it needs."""
    json_type = {"Content-Type": "application/json"}
    repository = {
        "_id": "1",
        "id": "org/name",
        "sha": "a" * 40,
        "private": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [],
    }
    entry = {"type": "file", "oid": "b" * 40, "size": 5, "path": "train.txt"}
    listing = "/api/datasets/org/name/tree/main?recursive=false&expand=false"
    for path, found in (("/api/datasets/org/name", repository), (listing, [entry])):
        web.answers[path] = Answer(body=json.dumps(found).encode(), headers=json_type)
    web.answers["/datasets/org/name/resolve/main/train.txt"] = Answer(body=b"hello")
    changes = {
        "input_sources": [Source(prefix="hf://datasets/org/", credential="hub")],
        "credentials": {"hub": Credential(options={"token": "hf_t", "endpoint": web.url})},
    }
    target = tmp_path / "a"
    assert fetch(service_settings, "hf://datasets/org/name/train.txt", target, **changes) == sha(
        b"hello"
    )
    assert {request.headers["authorization"] for request in web.requests} == {"Bearer hf_t"}
    with pytest.raises(JobError) as caught:
        fetch(service_settings, "hf://datasets/org/none/train.txt", target, **changes)
    assert (caught.value.code, caught.value.retryable) == ("input_unreadable", False)


def test_a_missing_package_is_named(
    service_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(inputs._PACKAGES, "s3", "s3fs_that_is_not_installed")
    with pytest.raises(JobError, match="needs the package s3fs_that"):
        fetch(service_settings, "s3://sets/acme/x", tmp_path / "a")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a b.txt").write_text("local")
    (tmp_path / "secret").write_text("hush")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "away").symlink_to(tmp_path)
    (folder / "inside").symlink_to(folder / "sub")
    os.mkfifo(folder / "pipe")
    return folder


def local(service_settings: Settings, root: Path, path: str, target: Path) -> str:
    changes = {"standalone": True, "input_root": root}
    return fetch(service_settings, f"file://{path}", target, **changes)


def test_a_local_file_below_the_root(
    service_settings: Settings, root: Path, tmp_path: Path
) -> None:
    found = local(service_settings, root, f"{root}/sub/a%20b.txt", tmp_path / "copy")
    assert found == sha(b"local")
    assert (tmp_path / "copy").read_text() == "local"


@pytest.mark.parametrize(
    "path",
    [
        "{above}/secret",
        "{root}/link",
        "{root}/away/secret",
        "{root}/inside/a%20b.txt",
        "{root}/pipe",
        "{root}/sub",
        "{root}",
        "{root}/none",
        "/etc/passwd",
        "/dev/zero",
        "{root}/../secret",
        "{root}/%2e%2e/secret",
        "{root}/..%2fsecret",
        "host{root}/sub/a%20b.txt",
        "{root}-other/x",
    ],
)
def test_nothing_else_is_read(
    service_settings: Settings, root: Path, tmp_path: Path, path: str
) -> None:
    Path(f"{root}-other").mkdir()
    (Path(f"{root}-other") / "x").write_text("hush")
    with pytest.raises(JobError) as caught:
        local(service_settings, root, path.format(root=root, above=tmp_path), tmp_path / "copy")
    assert caught.value.code == "input_unreadable"
    assert (tmp_path / "copy").read_bytes() == b"" if (tmp_path / "copy").exists() else True


def test_file_is_refused_outside_standalone_mode(api: Client, root: Path) -> None:
    with pytest.raises(InvalidSpec, match="input-root"):
        read(api, f"file://{root}/sub/a%20b.txt")
