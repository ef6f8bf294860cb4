"""A real vLLM server, started by `up --vllm`, samples for a real job."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from server.vllm import ENVIRONMENT
from tests.methods.tiny_models import tiny_llama
from tests.system.running import start, stop

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (ENVIRONMENT / ".done").exists(), reason="no vLLM here: `make vllm` builds it"
    ),
]


def test_vllm_samples_for_a_job(tmp_path: Path, folder: Path) -> None:
    model = tiny_llama(tmp_path / "tiny-llama")
    up = start(folder, arguments=["--vllm", str(model)])
    prompts = ["Question: What is the capital of France? Answer:", "one two three", "four"]
    items = [{"prompt": prompt, "references": ["Paris"]} for prompt in prompts]
    sampler = {"model": "tiny-llama", "n": 5, "max_tokens": 12}
    scorers = ["snne", "wsnne", "semantic_entropy", "msp"]
    with up.client() as client:
        # Loading takes a while: the job waits for the server, within its patience.
        job = client.jobs.create(
            "score-hallucination", {"items": items, "sampler": sampler, "scorers": scorers}
        )
        job.wait(timeout=500)
        assert job.raw_state == "SUCCEEDED", job.error
        result = job.result().data
        chat = client.jobs.create(
            "score-hallucination",
            {"items": items[:1], "sampler": sampler | {"chat": True}, "scorers": scorers},
        ).wait(timeout=100)
        assert chat.raw_state == "SUCCEEDED", chat.error
    for item in result["items"]:
        assert item["n"] == 5
        assert item["label"] == 1, "a model that was never trained does not know Paris"
        assert all(score["valid"] for score in item["scores"].values())
    sampling = result["sampling"]
    assert (sampling["n_items"], sampling["requests"]) == (3, 6)
    assert 0 < sampling["completion_tokens"] <= 3 * 6 * 12
    began = time.monotonic()
    output = stop(up)
    assert "Model tiny-llama is served" in output
    assert time.monotonic() - began < 60, "the model's server ends with the others"
