"""The whole service as real processes: `datassay-server up`, killed and stopped in every way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import psutil
import pytest
from datassay import Client

from tests.toys.up import Up, start, stop

pytestmark = pytest.mark.system


def test_a_fresh_start_a_job_a_stop_and_a_restart(folder: Path) -> None:
    up = start(folder)
    key_file = folder / "admin-key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    with up.client() as client:
        items = [{"responses": [{"text": "Paris"}, {"text": "Paris"}, {"text": "Lyon"}]}]
        job = client.jobs.create("score-hallucination", {"items": items}).wait(timeout=30)
        assert job.raw_state == "SUCCEEDED"
        assert job.result().data["items"][0]["n_unique"] == 2
    children = up.children()
    output = stop(up, signal.SIGINT)
    assert up.process.returncode == 0, output
    assert up.url in output
    assert "ended with" not in output, "nothing crashed on the way"
    assert not psutil.wait_procs(children, timeout=1)[1], "no orphan"

    again = start(folder)
    with again.client() as client:
        assert client.jobs.get(job.id).raw_state == "SUCCEEDED"
        assert client.jobs.create("toy", {}).wait(timeout=30).raw_state == "SUCCEEDED"
    key = key_file.read_text()
    stop(again)
    assert key_file.read_text() == key


def test_sigkill_of_the_parent_leaves_no_orphan_and_loses_no_job(folder: Path) -> None:
    up = start(folder)
    with up.client() as client:
        job = client.jobs.create("toy", {"steps": 40, "step_seconds": 0.1})
        isolated = client.jobs.create("toy-isolated", {})
        wait_for(lambda: job.refresh().raw_state == "RUNNING")
    children = up.children()
    assert len(children) >= 5
    up.process.kill()
    up.process.wait()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, [p.cmdline() for p in alive]
    again = start(folder)
    with again.client() as client:
        assert client.jobs.get(job.id).wait(timeout=60).raw_state == "SUCCEEDED"
        assert client.jobs.get(isolated.id).wait(timeout=60).raw_state == "SUCCEEDED"
    stop(again)


def test_kill_9_of_the_worker_again_and_again(up: Up, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with up.client() as client:
        for round_ in range(3):
            spec = {"steps": 10, "step_seconds": 0.1, "journal": f"{journal}-{round_}"}
            job = client.jobs.create("toy", spec, max_attempts=5)
            # The runner has begun, not only the claim: a start that is killed before has no line.
            wait_for(Path(f"{journal}-{round_}").exists)
            for worker in up.named("workers", "--queues"):
                worker.kill()
            assert job.wait(timeout=60).raw_state == "SUCCEEDED"
            starts = Path(f"{journal}-{round_}").read_text().splitlines()
            assert len(starts) == 2, "started again once, finished once"
            assert [a.outcome for a in job.attempts()] == ["lost", "succeeded"]


def test_with_the_broker_gone_jobs_are_accepted_and_run(up: Up) -> None:
    (valkey,) = up.named("--unixsocket") or up.named("valkey") or up.named("redis")
    with up.client() as client:
        valkey.suspend()
        try:
            began = time.monotonic()
            job = client.jobs.create("toy", {})
            assert time.monotonic() - began < 3, "POST does not wait for the broker"
            assert job.wait(timeout=30).raw_state == "SUCCEEDED"
        finally:
            valkey.resume()
        valkey.kill()
        assert client.jobs.create("toy", {}).wait(timeout=30).raw_state == "SUCCEEDED"
        wait_for(lambda: client.ready().status == "ready")
        assert client.jobs.create("toy", {}).wait(timeout=30).raw_state == "SUCCEEDED"


def test_with_the_database_gone_503_and_nothing_is_lost(up: Up) -> None:
    with up.client() as client:
        job = client.jobs.create("toy", {"steps": 20, "step_seconds": 0.1})
        wait_for(lambda: job.refresh().raw_state == "RUNNING")
    (postgres,) = up.named("postgres", "-D")
    postgres.suspend()
    try:
        headers = {"Authorization": f"Bearer {(up.folder / 'admin-key').read_text()}"}
        answer = httpx2.get(f"{up.url}/v1/jobs", headers=headers, timeout=30)
    finally:
        postgres.resume()
    postgres.send_signal(signal.SIGQUIT)  # a crash, as far as Postgres is concerned
    deadline = time.monotonic() + 30
    seen = {answer.status_code}
    while time.monotonic() < deadline:
        answer = httpx2.get(f"{up.url}/v1/jobs", headers=headers, timeout=30)
        seen.add(answer.status_code)
        if answer.status_code == 200 and 503 in seen:
            break
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "5"
            assert answer.json()["code"] == "backend-unavailable"
        time.sleep(0.05)
    assert seen <= {200, 503}
    assert 503 in seen
    with up.client() as client:
        assert client.jobs.get(job.id).wait(timeout=60).raw_state == "SUCCEEDED"


def test_sigterm_hands_the_running_job_back(up: Up) -> None:
    with up.client() as client:
        job = client.jobs.create("toy", {"steps": 300, "step_seconds": 0.05}, max_attempts=1)
        wait_for(lambda: job.refresh().raw_state == "RUNNING")
        (worker,) = up.named("workers", "--queues")
        worker.terminate()
        wait_for(lambda: job.refresh().attempt == 2, seconds=30)
        assert next(iter(job.attempts())).outcome == "released"
        job.cancel()
        assert job.wait(timeout=30, raise_on_failure=False).raw_state == "CANCELLED"


def test_a_second_up_in_the_same_folder_is_refused(up: Up) -> None:
    command = [sys.executable, "-m", "server", "up", "--data-dir", str(up.folder), "--port", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "in use by another datassay-server" in done.stderr


def test_keys_and_doctor(up: Up, tmp_path: Path) -> None:
    gateway = up.named("gateway")[0].environ()
    environment = {k: v for k, v in gateway.items() if k.startswith("DATASSAY_")}
    environment |= {"PATH": os.environ["PATH"]}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "server", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    token = command("keys", "create", "--tenant", "blue", "--name", "ci").stdout.strip()
    with Client(up.url, token) as client:
        assert (
            client.jobs.create("toy", {"artifact": "x"}).wait(timeout=30).raw_state == "SUCCEEDED"
        )
        listing = command("keys", "list").stdout
        assert token not in listing
        key_id = next(line.split()[0] for line in listing.splitlines() if " blue " in line)
        assert command("doctor").returncode == 0, command("doctor").stdout
        assert command("keys", "revoke", key_id).returncode == 0
        assert command("keys", "revoke", key_id).returncode == 1
        with pytest.raises(Exception, match="revoked"):
            next(iter(client.jobs.list()))
    stray = Path(environment["DATASSAY_STORAGE_URL"]) / "jobs" / "job_none" / "1" / "art_none"
    stray.parent.mkdir(parents=True)
    stray.write_text("x")
    report = command("doctor")
    assert report.returncode == 0, "the sweeper will see to it"
    assert "1 files without a row" in report.stdout
    os.utime(stray, (0, 0))
    report = command("doctor")
    assert report.returncode == 1
    assert "jobs/job_none/1/art_none" in report.stdout


def wait_for(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if condition():  # type: ignore[operator]
                return
        except Exception:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_a_process_that_cannot_start_ends_it_all_and_is_named(folder: Path) -> None:
    missing = folder.parent / "no such methods"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "server", "up", "--data-dir", str(folder), "--port", str(port)]
    ended = subprocess.run(
        command,
        env={**os.environ, "DATASSAY_EXTRA_METHODS": f'["{missing}"]'},
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "does not start: " in ended.stderr
    assert "no such methods" in ended.stderr
    assert f"see {folder / 'log'}" in ended.stderr


def test_packages_of_the_working_directory_are_not_taken_for_ours(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many projects have a `models/` or an `app/`; theirs must neither run nor be in the way."""
    for name in ("app", "infra", "methods", "models", "outbound", "server", "workers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('{name} of the user ran')")
    monkeypatch.chdir(tmp_path)
    up = start(folder, command=[str(Path(sys.executable).with_name("datassay-server"))])
    with up.client() as client:
        for kind in ("toy", "toy-isolated"):
            assert client.jobs.create(kind, {}).wait(timeout=60).raw_state == "SUCCEEDED"
    assert "of the user ran" not in stop(up)
    for log in (folder / "log").glob("*.log"):
        assert "of the user ran" not in log.read_text()
