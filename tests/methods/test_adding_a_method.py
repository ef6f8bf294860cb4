"""The files of docs/adding-a-method.md make a job type that runs in a folder and by the API."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from sqlalchemy import Engine

from infra.settings import Settings
from tests.services import TOYS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding-a-method.md"
ROWS = "b\na\nb\nA\nb\na\n"
#: In a process of its own: the method must not stay among those of other tests.
SERVICE = """
import sys
from pathlib import Path
import json
from infra.settings import Settings
from methods.registry import load_registry
from tests import services
settings = Settings.model_validate_json(sys.stdin.read())
services.registry = lambda: load_registry(settings.extra_methods)
with services.serve(settings) as url:
    client = services.client(url, settings)
    upload = client.files.upload(Path(sys.argv[1])).id
    job = client.jobs.create("count-duplicates", {"input": upload, "ignore_case": True})
    work = services.Workplace(settings)
    work.run()
    work.close()
    print(json.dumps({"state": job.refresh().raw_state, "result": job.result().data}))
    print(json.dumps(client.job_types.get("count-duplicates").title))
"""


def write_files(folder: Path) -> list[str]:
    blocks = re.findall(r"^```python file=(\S+)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    for name, text in blocks:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return [name for name, _ in blocks]


def run(spec: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "methods", "count-duplicates", str(spec), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_files_of_the_page_run_in_a_folder(tmp_path: Path) -> None:
    names = write_files(tmp_path / "more")
    assert names == [f"count_duplicates/{part}.py" for part in ("spec", "core", "job")]
    (tmp_path / "rows.txt").write_text(ROWS)
    (tmp_path / "spec.json").write_text('{"input": "rows.txt"}')
    assert "$ python -m methods count-duplicates spec.json --out out --methods" in PAGE.read_text()
    out = tmp_path / "out"
    done = run(tmp_path / "spec.json", "--out", str(out), "--methods", str(tmp_path / "more"))
    assert done.returncode == 0, done.stderr
    assert "Duplicates among 6 rows" in done.stdout
    assert f"Report: {out / 'report.html'}" in done.stdout
    assert "Most frequent rows" in (out / "report.html").read_text()
    result = json.loads((out / "result.json").read_text())
    assert (result["rows"], result["distinct"], result["duplicated"]) == (6, 3, 3)
    groups = (out / result["groups"]["id"]).read_text()
    assert json.loads(groups) == {"b": 3, "a": 2}
    assert result["provenance"]["method"] == "count-duplicates/1"


def test_wrong_input_is_named(tmp_path: Path) -> None:
    write_files(tmp_path / "more")
    (tmp_path / "rows.txt").write_bytes(b"fine\n\xff\n")
    (tmp_path / "spec.json").write_text('{"input": "rows.txt"}')
    done = run(tmp_path / "spec.json", "--methods", str(tmp_path / "more"))
    assert done.returncode == 1
    assert "Line 2 is not UTF-8" in done.stderr


def test_the_same_files_are_a_job_type_of_a_service(
    service_settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    write_files(tmp_path / "more")
    (tmp_path / "rows.txt").write_text(ROWS)
    settings = service_settings.model_copy(update={"extra_methods": [TOYS, tmp_path / "more"]})
    shown = settings.model_dump(mode="json", exclude_unset=True)
    for name in ("database_url", "broker_url", "secret"):
        shown[name] = getattr(settings, name).get_secret_value()
    shown = {k: v for k, v in shown.items() if k not in ("credentials", "input_sources")}
    done = subprocess.run(
        [sys.executable, "-c", SERVICE, str(tmp_path / "rows.txt")],
        cwd=ROOT,
        input=json.dumps(shown),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [
        json.loads(line) for line in done.stdout.splitlines() if line.startswith(('{"st', '"'))
    ]
    assert lines[0]["state"] == "SUCCEEDED"
    assert (lines[0]["result"]["distinct"], lines[0]["result"]["duplicated"]) == (2, 4)
    assert lines[1] == "Count duplicates"
