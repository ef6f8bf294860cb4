"""The `datassay` command: what it sends, prints and exits with."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import httpx2
import pytest
from datassay import Client
from datassay._cli import main

from tests.client.fake_service import Service, event, job, job_reply, problem, scored_result

JOB = "/v1/jobs/job_1"
CREATE = "/v1/jobs/score-hallucination"
FILE = {
    "id": "file_1",
    "name": "a.jsonl",
    "media_type": "application/x-ndjson",
    "size": 4,
    "sha256": "00",
    "created_at": "2026-11-23T10:00:00Z",
}

NO_FILES = {"items": [], "next_cursor": None}

Run: TypeAlias = Callable[..., int]


@pytest.fixture
def run(service: Service, naps: list[float]) -> Run:
    transport = httpx2.MockTransport(service)
    connect = partial(Client, transport=transport, sleep=naps.append)
    return lambda *argv: main.main(argv, connect=connect)


Capture: TypeAlias = pytest.CaptureFixture[str]


def test_submit_builds_the_spec_and_prints_the_id(
    run: Run, service: Service, capsys: Capture, tmp_path: Path
) -> None:
    rows = tmp_path / "a.jsonl"
    rows.write_text("{}\n")
    spec = tmp_path / "spec.json"
    spec.write_text('{"tau": 2, "similarity": {"kind": "exact"}}')
    service.on("GET", "/v1/files", httpx2.Response(200, json=NO_FILES))
    service.on("POST", "/v1/files", httpx2.Response(201, json=FILE))
    service.on("POST", CREATE, job_reply(), job_reply(status=202))
    options = ["--spec", str(spec), "--input", str(rows), "--label", "run=1", "--priority", "3"]
    sets = ["--set", "similarity.kind=rouge_l", "--set", 'scorers=["snne"]', "--set", "tau=0.5"]
    assert run("submit", "score-hallucination", *options, *sets, "--timeout", "60") == 0
    assert capsys.readouterr().out == "job_1\n"
    assert json.loads(service.requests[-1].content) == {
        "spec": {
            "tau": 0.5,
            "similarity": {"kind": "rouge_l"},
            "scorers": ["snne"],
            "input": "file_1",
        },
        "labels": {"run": "1"},
        "priority": 3,
        "timeout_seconds": 60.0,
    }


def test_submit_reads_the_spec_from_standard_input(
    run: Run, service: Service, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"seed": 1}'))
    service.on("POST", CREATE, job_reply(status=202))
    assert run("submit", "score-hallucination", "--spec", "-", "--dry-run") == 0
    assert json.loads(service.requests[0].content)["spec"] == {"seed": 1}
    assert service.requests[0].url.params["dry_run"] == "true"
    assert capsys.readouterr().out == "the spec is valid\n"


def test_submit_and_wait_prints_the_result(run: Run, service: Service, capsys: Capture) -> None:
    progress = {"phase": "score", "current": 1, "total": 4, "unit": "items", "rate": 2.0}
    service.on("POST", CREATE, job_reply(status=202))
    service.on(
        "GET",
        JOB,
        job_reply("QUEUED", waiting_for=["torch", "safetensors"]),
        job_reply("RUNNING", version=2, progress={**progress, "eta_seconds": 90.0}),
        job_reply("SUCCEEDED", version=3),
    )
    service.on("GET", f"{JOB}/result", httpx2.Response(200, json=scored_result()))
    assert run("submit", "score-hallucination", "--wait") == 0
    shown = capsys.readouterr()
    assert "Hallucination scores of 3 items" in shown.out
    assert "0.810 [0.750, 0.860]" in shown.out
    assert "QUEUED, waits for torch, safetensors" in shown.err
    assert "RUNNING score 1/4 2.0 items/s, 1:30 left" in shown.err
    assert "job_1" in shown.err


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "EXPIRED"])
def test_wait_exits_with_1_when_there_is_no_result(
    run: Run, service: Service, capsys: Capture, state: str
) -> None:
    failure = {"code": "timeout", "message": "too slow", "origin": "user", "retryable": False}
    service.on("GET", JOB, job_reply(state, error=failure))
    assert run("wait", "job_1") == 1
    error = capsys.readouterr().err
    assert f"datassay: job job_1 is {state}: too slow (timeout)" in error


def test_result_of_a_failed_job_exits_with_1(run: Run, service: Service) -> None:
    service.on("GET", JOB, job_reply("FAILED"))
    service.on("GET", f"{JOB}/result", problem(409, "job-failed"))
    assert run("result", "job_1") == 1


def test_result_writes_files(run: Run, service: Service, tmp_path: Path, capsys: Capture) -> None:
    service.on("GET", JOB, job_reply("SUCCEEDED"))
    service.on("GET", f"{JOB}/result", httpx2.Response(200, json=scored_result()))
    html, out = tmp_path / "report.html", tmp_path / "result.json"
    assert run("result", "job_1", "--html", str(html), "--out", str(out)) == 0
    assert "Hallucination scores of 3 items" in html.read_text()
    assert json.loads(out.read_text()) == scored_result()
    assert capsys.readouterr().out == ""


def test_a_refused_spec_exits_with_3_and_lists_the_faults(
    run: Run, service: Service, capsys: Capture
) -> None:
    faults = [{"pointer": "/spec/tau", "message": "must be \x1b[31m > 0"}]
    service.on("POST", CREATE, problem(422, "invalid-spec", errors=faults))
    assert run("submit", "score-hallucination") == 3
    assert capsys.readouterr().err.splitlines() == [
        "datassay: why (422 invalid-spec)",
        "  /spec/tau: must be �[31m > 0",
    ]


def test_a_missing_key_is_explained(run: Run, service: Service, capsys: Capture) -> None:
    service.on("GET", "/v1/jobs", problem(401, "unauthenticated"))
    assert run("list") == 3
    assert "DATASSAY_API_KEY_FILE" in capsys.readouterr().err


def test_no_connection_exits_with_4(run: Run, service: Service, capsys: Capture) -> None:
    service.on("GET", JOB, *[httpx2.ConnectError("refused") for _ in range(4)])
    assert run("show", "job_1") == 4
    assert capsys.readouterr().err.startswith("datassay: refused")


@pytest.mark.parametrize(
    "argv",
    [
        ("submit", "x", "--spec", "/nowhere.json"),
        ("submit", "x", "--set", "no-value"),
        ("submit", "x", "--set", "a=1", "--set", "a.b=1"),
        ("files", "upload", "/nowhere.jsonl"),
        ("--url", "ftp://host", "list"),
        ("show", ""),
    ],
)
def test_wrong_usage_exits_with_2(run: Run, capsys: Capture, argv: tuple[str, ...]) -> None:
    assert run(*argv) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("argv", [(), ("nonsense",), ("files",), ("show",)])
def test_arguments_that_do_not_parse_exit_with_2(run: Run, argv: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*argv)
    assert caught.value.code == 2


def test_help_documents_the_exit_codes(run: Run, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    assert "4  no connection" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [("--json", "list"), ("list", "--json")])
def test_json_may_stand_before_or_after_the_command(
    run: Run, service: Service, capsys: Capture, argv: tuple[str, ...]
) -> None:
    page = {"items": [job()], "next_cursor": None}
    service.on("GET", "/v1/jobs", httpx2.Response(200, json=page))
    assert run(*argv) == 0
    assert json.loads(capsys.readouterr().out) == [job()]


def test_list_and_show_print_what_they_found(
    run: Run, service: Service, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    page = {"items": [job("RUNNING", labels={"run": "[bold]"})], "next_cursor": None}
    service.on("GET", "/v1/jobs", httpx2.Response(200, json=page))
    service.on("GET", JOB, job_reply("QUEUED"))
    assert run("list", "--state", "running", "--type", "score-hallucination") == 0
    shown = capsys.readouterr().out
    assert "job_1" in shown
    assert "run=[bold]" in shown
    assert service.requests[0].url.params["state"] == "RUNNING"
    assert run("show", "job_1") == 0
    assert "QUEUED" in capsys.readouterr().out


def test_cancel_and_retry(run: Run, service: Service, capsys: Capture) -> None:
    service.on("POST", f"{JOB}/cancel", job_reply("CANCELLING", status=202))
    service.on("POST", f"{JOB}/retry", job_reply(status=202, id="job_2"))
    assert run("cancel", "job_1") == 0
    assert run("retry", "job_1") == 0
    assert capsys.readouterr().out == "job_1 CANCELLING\njob_2\n"


def test_events_print_a_line_each(run: Run, service: Service, capsys: Capture) -> None:
    pages = [[event(1, "state", state="QUEUED"), event(2, "log", message="\x07hi")], []]
    service.on("GET", f"{JOB}/events", *[httpx2.Response(200, json={"items": p}) for p in pages])
    assert run("events", "job_1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert '{"state": "QUEUED"}' in lines[0]


def test_files(run: Run, service: Service, capsys: Capture, tmp_path: Path) -> None:
    rows = tmp_path / "a.jsonl"
    rows.write_text("{}\n")
    page = {"items": [FILE], "next_cursor": None}
    pages = [httpx2.Response(200, json=answer) for answer in (NO_FILES, page, page)]
    service.on("GET", "/v1/files", *pages)
    service.on("POST", "/v1/files", httpx2.Response(201, json=FILE))
    service.on("DELETE", "/v1/files/file_1", httpx2.Response(204))
    assert run("files", "upload", str(rows)) == 0
    assert capsys.readouterr().out == "file_1\n"
    assert run("files", "upload", str(rows)) == 0
    shown = capsys.readouterr()
    assert shown.out == "file_1\n"
    assert "a.jsonl is there already: file_1" in shown.err
    assert [request.method for request in service.requests].count("POST") == 1
    assert service.requests[0].url.params["sha256"] == hashlib.sha256(b"{}\n").hexdigest()
    assert run("files", "list") == 0
    assert "a.jsonl" in capsys.readouterr().out
    assert run("files", "delete", "file_1") == 0


def test_ids_of_the_service_lead_nowhere_and_steer_nothing(
    run: Run, service: Service, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    evil = f"{tmp_path}/../outside\x1b[2J"
    artifact = {
        "id": "a",
        "name": "../x.txt",
        "size": 1,
        "sha256": hashlib.sha256(b"x").hexdigest(),
    }
    jobs = [job_reply("SUCCEEDED", id=evil) for _ in range(3)]
    service.on("GET", JOB, *jobs)
    path = "/v1/jobs/" + evil
    for name, answer in (
        ("artifacts", httpx2.Response(200, json={"items": [artifact], "next_cursor": None})),
        ("result", httpx2.Response(200, json=scored_result())),
    ):
        service.on("GET", f"{path}/{name}", answer)
    service.on("GET", "/v1/artifacts/a/content", httpx2.Response(200, content=b"x"))
    assert run("download", "job_1") == 0
    assert run("open", "job_1") == 0
    assert run("show", "job_1", "--json") == 0
    assert "\x1b" not in capsys.readouterr().out
    written = list(tmp_path.parent.rglob("x.txt"))
    assert all(tmp_path in p.parents for p in written)
    assert len(written) == 1


def test_types(run: Run, service: Service, capsys: Capture) -> None:
    kind = {"name": "demo", "version": "1", "title": "A demo", "resource": "cpu"}
    field = {"tau": {"description": "Temperature.", "default": 1.0}}
    detail = {**kind, "spec_schema": {"properties": field}, "example": {"tau": 2.0}}
    service.on("GET", "/v1/job-types", httpx2.Response(200, json={"items": [kind]}))
    service.on("GET", "/v1/job-types/demo", httpx2.Response(200, json=detail))
    assert run("types") == 0
    assert run("types", "demo") == 0
    shown = capsys.readouterr().out
    assert "A demo" in shown
    assert "Temperature." in shown


def test_select_subset_uploads_waits_and_downloads(
    run: Run, service: Service, capsys: Capture, tmp_path: Path
) -> None:
    for name in ("a.jsonl", "one.npy", "two.npy", "images.zip"):
        (tmp_path / name).write_bytes(b"data")
    for number in range(4):
        service.on("GET", "/v1/files", httpx2.Response(200, json=NO_FILES))
        service.on("POST", "/v1/files", httpx2.Response(201, json=FILE | {"id": f"file_{number}"}))
    service.on("POST", "/v1/jobs/select-subset", job_reply(), job_reply(status=202))
    service.on("GET", JOB, job_reply("SUCCEEDED", version=2))
    result = {"selected": 2, "candidates": 9, "indices": [4, 1], "warnings": ["mind"]}
    service.on("GET", f"{JOB}/result", httpx2.Response(200, json=result))
    content = b"rows\n"
    digest = hashlib.sha256(content).hexdigest()
    artifact = {"id": "artifact_1", "name": "../../selected.jsonl", "size": 5, "sha256": digest}
    page = {"items": [artifact], "next_cursor": None}
    service.on("GET", f"{JOB}/artifacts", httpx2.Response(200, json=page))
    service.on("GET", "/v1/artifacts/artifact_1/content", httpx2.Response(200, content=content))
    features = f"trajectory={tmp_path / 'one.npy'},{tmp_path / 'two.npy'}"
    options = ["--budget", "2", "--feature", features, "--images", str(tmp_path / "images.zip")]
    more = ["--param", "within=random", "--group-field", "@source", "--skip-bad-rows"]
    out = tmp_path / "out"
    assert run("select-subset", str(tmp_path / "a.jsonl"), *options, *more, "--out", str(out)) == 0
    tried, create = [r for r in service.requests if r.url.path == "/v1/jobs/select-subset"]
    assert tried.url.params["dry_run"] == "true", "the spec is checked before anything is sent"
    assert json.loads(create.content)["spec"] == {
        "dataset": {"input": "file_0", "images": "file_1"},
        "features": [{"kind": "trajectory", "inputs": ["file_2", "file_3"]}],
        "budget": {"count": 2},
        "method": "xmas",
        "params": {"within": "random"},
        "groups": {"field": "@source", "balance": "none"},
        "on_bad_rows": "skip",
        "seed": 0,
    }
    shown = capsys.readouterr()
    assert shown.out == (f"2 of 9 rows, 1 files in {out}\nthe report is {out / 'report.html'}\n")
    assert (out / "report.html").is_file()
    assert "warning: mind" in shown.err
    assert (out / "selected.jsonl").read_bytes() == content
    assert json.loads((out / "result.json").read_text()) == result


def test_select_subset_takes_every_field_of_the_spec(
    run: Run, service: Service, tmp_path: Path
) -> None:
    for name in ("a.jsonl", "target.jsonl"):
        (tmp_path / name).write_bytes(name.encode())
    reference = {"type": "string", "format": "datassay-input"}
    rows = {"properties": {"input": {"anyOf": [reference, {"type": "null"}]}}}
    schema = {"properties": {"dataset": rows, "target": {"anyOf": [rows, {"type": "null"}]}}}
    kind = {"name": "select-subset", "version": "2", "spec_schema": schema}
    service.on("GET", "/v1/job-types/select-subset", httpx2.Response(200, json=kind))
    for number in range(2):
        service.on("GET", "/v1/files", httpx2.Response(200, json=NO_FILES))
        service.on("POST", "/v1/files", httpx2.Response(201, json=FILE | {"id": f"file_{number}"}))
    service.on("POST", "/v1/jobs/select-subset", job_reply(), job_reply(status=202))
    options = ["--budget", "5", "--model", "m", "--method", "less", "--prove", "--duplicates=drop"]
    more = ["--set", f"target.input={tmp_path / 'target.jsonl'}", "--set", "prove.seeds=5"]
    assert run("select-subset", str(tmp_path / "a.jsonl"), *options, *more, "--no-wait") == 0
    _, create = [r for r in service.requests if r.url.path == "/v1/jobs/select-subset"]
    spec = json.loads(create.content)["spec"]
    assert spec["dataset"] == {"input": "file_0"}
    assert spec["target"] == {"input": "file_1"}
    assert spec["prove"] == {"seeds": 5}
    assert spec["duplicates"] == "drop"


def test_the_first_bad_rows_are_shown(
    run: Run, service: Service, capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"data")
    service.on("GET", "/v1/files", httpx2.Response(200, json=NO_FILES))
    service.on("POST", "/v1/files", httpx2.Response(201, json=FILE | {"id": "file_1"}))
    service.on("POST", "/v1/jobs/select-subset", job_reply(), job_reply(status=202))
    rows = [{"row": n, "id": f"r{n}", "field": "image", "problem": "is gone"} for n in range(30)]
    error = {"code": "input_invalid", "message": "30 of 40 rows are not valid."}
    error["details"] = {"bad_rows": 30, "examples": rows}
    service.on("GET", JOB, job_reply("FAILED", version=2, error=error))
    options = ["--budget", "5", "--method", "random"]
    assert run("select-subset", str(tmp_path / "a.jsonl"), *options) == 1
    shown = capsys.readouterr().err
    assert "row 0 (r0): image is gone" in shown
    assert "row 9 (r9)" in shown
    assert "row 10 (" not in shown
    assert "and 20 more" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["a.jsonl", "--budget", "0%"], "a number of rows or a share"),
        (["a.jsonl", "--budget", "1.5"], "a number of rows or a share"),
        (["a.jsonl", "--budget", "x%"], "a number of rows or a share"),
        (["a.jsonl", "--budget", "5", "--model", "m", "--feature", "score=x"], "not both"),
        (["a.jsonl", "--budget", "5", "--feature", "score"], "KEY=VALUE is expected"),
        (["gone.jsonl", "--budget", "5"], "no such file"),
    ],
)
def test_select_subset_refuses_before_anything_is_sent(
    run: Run, service: Service, capsys: Capture, options: list[str], message: str
) -> None:
    assert run("select-subset", *options) == 2
    assert message in capsys.readouterr().err
    assert not service.requests
