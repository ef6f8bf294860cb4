"""`datassay select-subset` and a job with a model against the whole service."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datassay import cli

from tests.methods import tiny_llava as tiny
from tests.methods.test_select_subset_model import FINE_TUNE, WORDS, inline
from tests.system.running import Up, start, stop

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def main(up: Up, *argv: str) -> int:
    key = (up.folder / "admin-key").read_text()
    return cli.main(["--url", up.url, "--api-key", key, *argv])


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
        assert main(up, "select-subset", data, *options, *more) == 0
        shown = capsys.readouterr()
        assert shown.out == f"10 of 50 rows, 6 files in {tmp_path / 'data-subset'}\n"
        assert "uploading data.jsonl" in shown.err
        assert "downloading selected.jsonl" in shown.err
        chosen = tmp_path / "data-subset"
        result = json.loads((chosen / "result.json").read_text())
        lines = (chosen / "selected.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [rows[i] for i in result["indices"]]
        assert np.load(chosen / "indices.npy").tolist() == result["indices"]
        assert main(up, "select-subset", data, "--budget", "most") == 2
        assert main(up, "select-subset", data, "--budget", "5", "--images", "nowhere") == 2
        assert main(up, "select-subset", data, "--budget", "5", "--method", "loss") == 3
        assert "needs score, not no features" in capsys.readouterr().err
    finally:
        stop(up)


def test_a_killed_worker_costs_one_shard(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(tiny.save(tmp_path / "model", WORDS, hidden=16))
    monkeypatch.setenv("DATASSAY_MODELS", json.dumps({"proxy": {"path": model}}))
    rows = [row | {"id": f"{n}-{row['id']}"} for n in range(20) for row in inline()]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows))
    up = start(folder)
    try:
        with up.client() as client:
            spec = {
                "dataset": {"input": client.files.upload(tmp_path / "rows").id},
                "model": {
                    "name": "proxy",
                    "fine_tune": FINE_TUNE | {"checkpoints": 1, "batch_rows": 128},
                    "shard_rows": 120,
                    "batch_tokens": 32,
                },
                "budget": {"fraction": 0.1},
            }
            job = client.jobs.create("select-subset", spec, max_attempts=3)

            def begun() -> list[str]:
                return [
                    event.data["message"]
                    for event in client.jobs.events(job.id)
                    if event.kind == "log" and "shard" in event.data.get("message", "")
                ]

            deadline = time.monotonic() + 120
            while len(begun()) < 2:
                assert time.monotonic() < deadline, job.refresh()
                time.sleep(0.05)
            for worker in up.named("workers", "--queues"):
                worker.kill()
            job.wait(timeout=180)
            assert job.raw_state == "SUCCEEDED"
            assert [attempt.outcome for attempt in job.attempts()] == ["lost", "succeeded"]
            assert sorted(Counter(begun()).values()) == [1, 1, 1, 2]
            assert job.result().data["selected"] == 56
    finally:
        stop(up)
