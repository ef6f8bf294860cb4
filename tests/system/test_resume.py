"""A worker is killed half-way; its successor goes on from what was kept."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests.toys.fake_llm import FakeLLM, serving
from tests.toys.up import start, stop

pytestmark = pytest.mark.system


@pytest.mark.timeout(180)
def test_what_was_sampled_is_not_sampled_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = FakeLLM()
    prompts = [f"prompt {k}" for k in range(400)]
    spec = {
        "items": [{"prompt": prompt} for prompt in prompts],
        "sampler": {"model": "fake", "n": 2, "greedy_answer": False},
        "scorers": ["snne"],
    }
    with serving(llm) as url:
        models = {"fake": {"base_url": url, "max_in_flight": 4}}
        monkeypatch.setenv("DATASSAY_MODELS", json.dumps(models))
        up = start(folder)
        try:
            with up.client() as client:
                job = client.jobs.create("score-hallucination", spec)
                database = str(up.settings().database_url.get_secret_value())
                kept = wait_for_kept(database, llm)
                for worker in up.named("workers", "--queues"):
                    worker.kill()
                llm.gate.set()
                job.wait(timeout=120)
                assert (job.raw_state, job.attempt) == ("SUCCEEDED", 2)
                assert len(job.result().data["items"]) == len(prompts)
        finally:
            stop(up)
    asked = Counter(request["prompt"] for request in llm.requests)
    assert set(asked) == set(prompts), "everything was sampled"
    assert {asked[prompts[number]] for number in kept} == {1}, "and what was kept, once"
    assert len(kept) >= 256


def wait_for_kept(database: str, llm: FakeLLM) -> list[int]:
    """The numbers of the items that are durable; from then on the server answers nobody."""
    with psycopg.connect(database, autocommit=True) as connection:
        while True:
            rows = connection.execute(
                "SELECT value->'value' FROM job_checkpoints"
                " WHERE key LIKE 'kept-%' AND key NOT LIKE '%/usage'"
            ).fetchall()
            if rows:
                llm.gate.clear()
                return [number for (part,) in rows for number, _ in part]
            time.sleep(0.02)
