"""What people get wrong at the command line, and what they are told: against a real gateway."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from datassay import Client
from datassay._cli import main

from infra.settings import Settings
from server import keys

#: Exit code, and what must be said, for each command line; `{…}` stands for a file made below.
MISTAKES: dict[str, tuple[int, str]] = {
    # The command itself.
    "sumbit score-hallucination": (2, "there is no 'sumbit'; did you mean 'submit'?"),
    "frobnicate": (2, "there is no 'frobnicate'; known: "),
    "submit score-hallucination --inptu {good}": (2, "there is no option --inptu; did you mean"),
    "submit": (2, "name a job type; `datassay types` lists them"),
    "submit score-hallucination --set tau": (2, "--set tau: KEY=VALUE is expected"),
    "submit score-hallucination --label team": (2, "--label team: KEY=VALUE is expected"),
    "submit score-hallucination --priority high": (2, "invalid int value: 'high'"),
    "result": (2, "the following arguments are required: ID"),
    # The job type, its fields and values.
    "submit score-halucination --input {good}": (3, "did you mean 'score-hallucination'?"),
    "submit score-hallucination --input {good} --set taw=1": (3, "did you mean 'tau'?"),
    "submit score-hallucination --input {good} --set 'scorers=[\"snee\"]'": (
        3,
        "did you mean 'snne'?",
    ),
    "submit score-hallucination --input {good} --set similarity.kind=rouge": (
        3,
        "did you mean 'rouge_l'?",
    ),
    "submit score-hallucination --input {good} --set tau=warm": (3, "/spec/tau: "),
    "submit score-hallucination --input {good} --set tau=-1": (
        3,
        "or equal to 0.000001",
    ),
    "submit score-hallucination": (3, "exactly one of"),
    "submit score-hallucination --input {good} --set sampler.model=tinny": (
        3,
        "did you mean 'tiny'?",
    ),
    "submit score-hallucination --input {good} --priority 1000": (3, "/priority: "),
    "submit score-hallucination --input {good} --timeout 600000": (3, "may run for"),
    "submit select-subset --set budget.count=0": (3, "/spec/budget/count: "),
    "types score-halucination": (3, "did you mean 'score-hallucination'?"),
    # Files.
    "submit score-hallucination --input gone.jsonl": (2, "gone.jsonl: no such file"),
    "submit score-hallucination --input {empty}": (2, "the file is empty"),
    "submit score-hallucination --input {folder}": (2, "a folder; give the file in it"),
    "submit score-hallucination --spec {csv}": (2, "not JSON"),
    "submit score-hallucination --spec gone.json": (2, "No such file or directory: 'gone.json'"),
    "submit score-hallucination --spec {list}": (2, "a JSON object is expected"),
    "submit score-hallucination --input file_1": (3, "there is no file file_1"),
    "submit score-hallucination --input http://elsewhere.test/a.jsonl": (
        3,
        "the operator allows no input from there",
    ),
    "select-subset {good} --budget 0%": (2, "a number of rows or a share such as 20% is expected"),
    "select-subset {csv} --budget 20%": (3, "method xmas needs"),
    # Ids, keys and addresses.
    "show job_1": (3, "There is no job 'job_1'"),
    "show 7": (3, "There is no job '7'"),
    "cancel job_00000000000000000000000000000000": (3, "There is no job"),
    "download job_00000000000000000000000000000000": (3, "There is no job"),
    "keys create ci --scope jobs:raed": (3, "/scopes/0: "),
    "keys create ci --days 0": (2, "--days 0: a number above 0 is expected"),
    "keys create ci --days inf": (2, "--days inf: a number above 0 is expected"),
    "list --api-key nonsense": (3, "give a key by --api-key"),
    "list --url http://127.0.0.1:9": (4, "refused"),
    "list --url ftp://service.test": (2, "not an http or https URL: 'ftp://service.test'"),
    "list --data-dir gone": (2, "--data-dir gone: no service runs there"),
    "list --data-dir gone --url http://127.0.0.1:9": (2, "give --url or --data-dir, not both"),
    "submit score-hallucination --input {good} --timeout nan": (2, "invalid"),
    "select-subset {good} --budget 1e9999999%": (2, "a share such as 20% is expected"),
    "doctor --url http://127.0.0.1:9": (1, "is it running (`datassay-server up`)"),
    "doctor --api-key nonsense": (1, "give one by --api-key"),
}


@pytest.fixture(scope="module")
def key(session_engine: Any, service_settings: Settings) -> str:
    return keys.create(service_settings, "mistaken", "k", ["admin"])


@pytest.fixture
def run(
    gateway_url: str,
    service_settings: Settings,
    engine: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[..., int]:
    token = keys.create(service_settings, "mistaken", "k", ["admin"])
    monkeypatch.setenv("DATASSAY_URL", gateway_url)
    monkeypatch.setenv("DATASSAY_API_KEY", token)
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> int:
        import shlex

        try:
            return main.main(shlex.split(line))
        except SystemExit as stop:
            return int(stop.code or 0)

    return run


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "answers.jsonl").write_text('{"responses": [{"text": "a"}]}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "folder").mkdir()
    return {
        "good": "answers.jsonl",
        "empty": "empty.jsonl",
        "list": "list.json",
        "csv": "rows.csv",
        "folder": "folder",
    }


def test_the_table_has_thirty_mistakes() -> None:
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_explained_and_nothing_is_sent(
    line: str,
    run: Callable[[str], int],
    files: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    gateway_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("datassay.retry.RetryPolicy.delay", lambda *_: None)
    code, said = MISTAKES[line]
    filled = re.sub(r"\{(\w+)\}", lambda match: files[match[1]], line)
    assert run(filled) == code
    shown = capsys.readouterr()
    text = shown.err + (shown.out if line.startswith("doctor") else "")
    assert said in text, text
    assert "Traceback" not in text
    assert "Value error" not in text
    lines = [one for one in text.splitlines() if not one.startswith(("usage:", " "))]
    assert len(lines) <= 4, text
    assert text.count(said) == 1, "it is said once"
    # A misspelt field costs no upload.
    assert list(Client().files.list()) == []


def test_a_dry_run_sends_nothing(
    run: Callable[[str], int], files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("submit score-hallucination --input answers.jsonl --dry-run") == 0
    assert capsys.readouterr().out == "the spec is valid\n"
    assert run("submit score-hallucination --input answers.jsonl --dry-run --set tau=-1") == 3
    assert run("submit score-hallucination --dry-run") == 3
    assert list(Client().files.list()) == []
    assert list(Client().jobs.list()) == []


def test_a_good_file_is_sent_once(
    run: Callable[[str], int], files: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert run("submit score-hallucination --input answers.jsonl") == 0
    assert len(list(Client().files.list())) == 1
    first, second = capsys.readouterr().out.split()
    assert first != second
    assert run("files upload answers.jsonl") == 0
    assert len(list(Client().files.list())) == 1


def test_the_help_of_a_job_type_lists_its_fields(
    run: Callable[[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("submit score-hallucination --help", "submit -h score-hallucination"):
        assert run(line) == 0
        text = capsys.readouterr().out
        assert "Score answers for hallucination" in text
        for field in (
            "tau=NUMBER 1e-06..1e+06",
            "similarity.kind=",
            "sampler.model=MODEL",
            "input=",
        ):
            assert field in text
        assert "Scale of SNNE; useful" in text
        assert '"responses"' in text
    assert run("submit --help") == 0
    assert "usage: datassay submit" in capsys.readouterr().out


def test_every_field_of_every_job_type_can_be_set(
    run: Callable[[str], int], gateway_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from datassay._cli import spec_help

    for kind in Client().job_types.list():
        if kind.name.startswith("toy"):
            continue
        detail = Client().job_types.get(kind.name)
        found = {option.path for option in spec_help.options(detail.spec_schema or {})}
        assert set((detail.spec_schema or {})["properties"]) <= found
        assert all(option.text for option in spec_help.options(detail.spec_schema or {}))
        assert run(f"submit {kind.name} --help") == 0
        capsys.readouterr()


def test_models_keys_and_doctor(
    run: Callable[[str], int], capsys: pytest.CaptureFixture[str], gateway_url: str
) -> None:
    assert run("models") == 0
    assert "tiny\tworker" in capsys.readouterr().out
    assert run("keys create ci --scope jobs:read --days 2") == 0
    token = capsys.readouterr().out.strip()
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx2.get(f"{gateway_url}/v1/jobs", headers=headers).status_code == 200
    assert run("keys list") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    [mine] = [row for row in rows if row[1] == "ci"]
    assert mine[3] == "jobs:read"
    assert run(f"keys revoke {mine[0]}") == 0
    assert httpx2.get(f"{gateway_url}/v1/jobs", headers=headers).status_code == 401
    capsys.readouterr()
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    assert "ok   service" in shown
    assert "ok   key" in shown
    assert run("--json doctor") == 0
    assert [one["subject"] for one in json.loads(capsys.readouterr().out)] == [
        "service",
        "key",
        "job types",
    ]


def test_the_service_of_a_folder_is_found_without_settings(
    gateway_url: str,
    service_settings: Settings,
    engine: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    token = keys.create(service_settings, "mistaken", "k", ["admin"])
    for folder in (tmp_path / ".datassay", tmp_path / "other"):
        folder.mkdir()
        (folder / "admin-key").write_text(token)
        (folder / "address").write_text(f"{gateway_url}\n")
    for name in ("DATASSAY_URL", "DATASSAY_API_KEY", "DATASSAY_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert main.main(["list"]) == 0
    assert main.main(["list", "--data-dir", "other"]) == 0
    # A key is never sent to an address that it does not belong to.
    monkeypatch.setenv("DATASSAY_URL", gateway_url)
    assert main.main(["list"]) == 3
    (tmp_path / "other" / "address").unlink()
    assert main.main(["list", "--data-dir", "other"]) == 2
    monkeypatch.delenv("DATASSAY_URL")
    # A folder that came with somebody's files sends nobody elsewhere.
    (tmp_path / ".datassay" / "address").write_text("http://elsewhere.test\n")
    seen = []
    monkeypatch.setattr("datassay.client.Config.resolve", lambda *given: seen.append(given))
    with pytest.raises(AttributeError):
        main.main(["list"])
    assert seen[0][:2] == (None, None)
    capsys.readouterr()


def test_lists_fit_eighty_columns_and_are_whole_through_a_pipe(
    run: Callable[[str], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"team": "a" * 60}
    job = Client().jobs.create("toy", {"steps": 1}, labels=labels)
    assert run("list") == 0
    [row] = capsys.readouterr().out.splitlines()
    assert row.split("\t")[0] == job.id
    assert "a" * 60 in row
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run("list") == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert job.id in plain
    assert max(map(len, plain.splitlines())) <= 80


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completions_name_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--print-completion", shell])
    script = capsys.readouterr().out
    assert "submit" in script
    assert "--data-dir" in script
