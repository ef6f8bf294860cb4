"""`datassay select-subset` and a job with a model against the whole service."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from datassay._cli import main

from tests.methods.select_subset.proxied import FINE_TUNE, WORDS, inline
from tests.toys import tiny_llava as tiny
from tests.toys.up import Up, start, stop

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def datassay(up: Up, *argv: str) -> int:
    key = (up.folder / "admin-key").read_text()
    return main.main(["--url", up.url, "--api-key", key, *argv])


def test_from_a_file_to_the_chosen_rows(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": f"r{n}", "text": f"row {n}"} for n in range(50)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((50, 3)))
    up = start(folder)
    try:
        options = ["--budget", "20%", "--feature", f"trajectory={tmp_path / 'x.npy'}"]
        more = ["--param", "clusters=4", "--seed", "3"]
        data = str(tmp_path / "data.jsonl")
        assert datassay(up, "select-subset", data, *options, *more) == 0
        shown = capsys.readouterr()
        folder_of_choice = tmp_path / "data-subset"
        assert shown.out == (
            f"10 of 50 rows, 8 files in {folder_of_choice}\n"
            f"the report is {folder_of_choice / 'report.html'}\n"
        )
        assert "uploading data.jsonl" in shown.err
        assert "downloading selected.jsonl" in shown.err
        chosen = tmp_path / "data-subset"
        result = json.loads((chosen / "result.json").read_text())
        lines = (chosen / "selected.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [rows[i] for i in result["indices"]]
        assert np.load(chosen / "indices.npy").tolist() == result["indices"]
        assert datassay(up, "select-subset", data, "--budget", "most") == 2
        assert datassay(up, "select-subset", data, "--budget", "5", "--images", "nowhere") == 2
        assert datassay(up, "select-subset", data, "--budget", "5", "--method", "loss") == 3
        assert "needs score, not no features" in capsys.readouterr().err
    finally:
        stop(up)


def test_a_killed_worker_costs_one_shard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers share a job of four shards; the one that does not hold the job dies with one."""
    model = str(tiny.save(tmp_path / "model", WORDS, hidden=16))
    monkeypatch.setenv("DATASSAY_MODELS", json.dumps({"proxy": {"path": model}}))
    rows = [row | {"id": f"{n}-{row['id']}"} for n in range(20) for row in inline()]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
    up = start(folder, arguments=["--workers", "2"])
    try:
        with up.client() as client:
            spec = {
                "dataset": {"input": client.files.upload(tmp_path / "rows").id},
                "model": {
                    "name": "proxy",
                    "fine_tune": FINE_TUNE | {"checkpoints": 1, "batch_rows": 128},
                    "shard_rows": 120,
                    "batch_tokens": 840,
                },
                "budget": {"fraction": 0.1},
            }
            job = client.jobs.create("select-subset", spec, max_attempts=3)

            def victims() -> list[psutil.Process]:
                """The worker to be killed, once it runs a shard."""
                pids = {
                    _pid(child.attempts())
                    for child in client.jobs.list(parent=job.id)
                    if child.type == "select-subset-shard" and child.raw_state == "RUNNING"
                } - {_pid(job.attempts())}
                return [w for w in up.named("workers", "--queues") if w.pid in pids]

            deadline = time.monotonic() + 200
            while not (found := victims()):
                assert time.monotonic() < deadline, job.refresh()
                time.sleep(0.05)
            found[0].kill()
            job.wait(timeout=300)
            assert job.raw_state == "SUCCEEDED", job.error
            outcomes = {
                child.id: [attempt.outcome for attempt in child.attempts()]
                for child in client.jobs.list(parent=job.id)
                if child.type == "select-subset-shard"
            }
            assert sorted(outcomes.values()) == [["lost", "succeeded"], *[["succeeded"]] * 3]
            assert [attempt.outcome for attempt in job.attempts()] == ["succeeded"]
            result = job.result().data
            assert (result["selected"], result["proxy"]["rows_read"]) == (56, 480)
    finally:
        stop(up)


def _pid(attempts: list[Any]) -> int | None:
    """Of the worker of the last attempt; it is named by host and process."""
    return int(attempts[-1].worker.rpartition(":")[2]) if attempts else None
