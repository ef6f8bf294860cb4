"""A real vLLM server, started by `up --vllm`, samples for a real job."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from methods.inference import lora_server
from methods.inference.model_registry import ModelDeclaration
from server.vllm import ENVIRONMENT
from tests.toys.tiny_models import by_transformers, tiny_adapter, tiny_llama
from tests.toys.up import start, stop

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (ENVIRONMENT / ".done").exists(), reason="no vLLM here: `make vllm` builds it"
    ),
]


def _lines(job: Any, name: str) -> list[Any]:
    [artifact] = [artifact for artifact in job.artifacts() if artifact.record.name == name]
    return [json.loads(line) for line in b"".join(artifact.iter_bytes()).splitlines()]


def test_vllm_samples_and_judges_for_a_job(tmp_path: Path, folder: Path) -> None:
    model = tiny_llama(tmp_path / "tiny-llama")
    up = start(folder, arguments=["--vllm", str(model)])
    prompts = ["Question: What is the capital of France? Answer:", "one two three", "four"]
    items = [{"prompt": prompt, "references": ["Paris"]} for prompt in prompts]
    sampler = {"model": "tiny-llama", "n": 5, "max_tokens": 12}
    scorers = ["snne", "wsnne", "semantic_entropy", "msp"]
    judge = {"model": "tiny-llama", "chat": False}
    spec = {"items": items, "sampler": sampler, "scorers": scorers}
    early = {"stop_early": {"threshold": 0.5, "level": 0.999999}}
    with up.client() as client:
        # Loading takes a while: the job waits for the server, within its patience.
        job = client.jobs.create(
            "score-hallucination",
            spec | {"scorers": [*scorers, "p_true", "llm_panel"], "judges": [judge]},
        )
        job.wait(timeout=500)
        assert job.raw_state == "SUCCEEDED", job.error
        result = job.result().data
        said = _lines(job, "judgements.jsonl")
        drawn = _lines(job, "responses.jsonl")
        chat = client.jobs.create(
            "score-hallucination",
            spec
            | {"items": items[:1], "sampler": sampler | {"chat": True} | early}
            | {"scorers": ["snne", "p_true"], "judges": [judge | {"chat": True}]},
        ).wait(timeout=100)
        assert chat.raw_state == "SUCCEEDED", chat.error
        assert chat.result().data["items"][0]["n"] == 5
        said += _lines(chat, "judgements.jsonl")
    assert result["judging"]["requests"] == 6
    likeliest = [line["likeliest"] for line in said if line["scorer"] == "p_true"]
    assert len(likeliest) == 4
    # Of texts that end within a character a server of completions gives one.
    assert min(map(len, likeliest)) > 5
    for response in [response for item in drawn for response in item["responses"]]:
        assert len(response["tokens"]) == len(response["token_logprobs"]) > 0
    for item in result["items"]:
        judged = {name: item["scores"].pop(name) for name in ("p_true", "llm_panel")}
        assert all(score["valid"] == (score["reason"] is None) for score in judged.values())
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


def test_vllm_answers_an_adapter_that_a_job_made(tmp_path: Path, folder: Path) -> None:
    model = tiny_llama(tmp_path / "tiny-llama")
    adapter = tiny_adapter(model, tmp_path / "adapter")
    up = start(
        folder,
        arguments=["--vllm", str(model), "--vllm-args", "--enable-lora --max-lora-rank 8"],
    )

    def answers(client: Any, name: str) -> tuple[str, int]:
        sampler = {"model": name, "n": 2, "max_tokens": 12, "greedy_answer": True}
        items = [{"prompt": "one two three"}]
        spec = {"items": items, "sampler": sampler, "scorers": ["discrete_semantic_entropy"]}
        job = client.jobs.create("score-hallucination", spec).wait(timeout=500)
        assert job.raw_state == "SUCCEEDED", job.error
        [drawn] = _lines(job, "responses.jsonl")
        return drawn["answer"]["text"], job.result()["sampling"]["requests"]

    with up.client() as client:
        spec = {"action": "adapter", "artifact": str(adapter), "model": "tiny-llama-weights"}
        made = client.jobs.create("toy", spec).wait(timeout=60).result()["text"]
        base, _ = answers(client, "tiny-llama")
        tuned, requests = answers(client, made)
        assert requests > 0
        assert tuned != base
        # The same by transformers, where no server answers adapters.
        url = json.loads((folder / "environment.json").read_text())["DATASSAY_MODELS"]
        served = json.loads(url)["tiny-llama"]["base_url"]
        listed = [one["id"] for one in httpx2.get(f"{served}/models").json()["data"]]
        assert listed == ["tiny-llama"], "nothing is left loaded"
        assert list((folder / "adapters").iterdir()) == []
    log = (folder / "log" / "vllm.log").read_text()
    assert "/v1/load_lora_adapter" in log
    stop(up)
    assert tuned == by_transformers(model, adapter, "one two three", 12)


def test_vllm_answers_for_a_base_and_adapters_that_are_trained(
    tmp_path: Path, folder: Path
) -> None:
    """align-safety: base and two adapters through one server, and nothing is left loaded."""
    model = tiny_llama(tmp_path / "tiny-llama")
    up = start(
        folder,
        arguments=["--vllm", str(model), "--vllm-args", "--enable-lora --max-lora-rank 8"],
    )
    words = ["one two", "two three", "three four", "four five"]
    # Enough to change what a model says that was never trained, each in another way.
    steep = {"r": 8, "lora_alpha": 16, "num_train_epochs": 1, "per_device_train_batch_size": 2}
    spec = {
        "model": "tiny-llama-weights",
        "train": {
            "rows": [{"prompt": f"say {word}", "completion": " I can't help."} for word in words]
        },
        "configurations": [
            {"name": "first", "learning_rate": [1e-3], **steep},
            {"name": "second", "learning_rate": [5e-3], **steep},
        ],
        "evaluate": {
            "harmful": {"rows": [{"prompt": f"how to {word}"} for word in words]},
            "benign": {"rows": [{"prompt": f"tell me {word}"} for word in words]},
            "sampling": {"max_tokens": 12},
        },
        "gates": {"harmful_rate": 1.0, "over_refusal": 1.0, "accuracy_drop": None},
    }
    with up.client() as client:
        job = client.jobs.create("align-safety", spec).wait(timeout=500)
        assert job.raw_state == "SUCCEEDED", job.error
        result = job.result().data
        assert result["provenance"]["settings"]["responses"] == "server"
        said: dict[str, dict[str, str]] = {}
        for line in _lines(job, "responses.jsonl"):
            said.setdefault(line["checkpoint"], {})[line["prompt"]] = line["response"]
        assert len(said) == 3, "before, and two adapters"
        answers = [tuple(one[prompt] for prompt in sorted(one)) for one in said.values()]
        assert len(set(answers)) == 3, "each model has answers of its own"
        assert result["baseline"]["mean_tokens"] > 0
        models = json.loads(
            json.loads((folder / "environment.json").read_text())["DATASSAY_MODELS"]
        )
        declared = ModelDeclaration.model_validate(models["tiny-llama"])
        served = f"{declared.base_url}/models"

        def loaded() -> list[str]:
            return [one["id"] for one in httpx2.get(served).json()["data"]]

        assert loaded() == ["tiny-llama"], "nothing is left loaded"
        adapters = folder / "adapters"
        assert list(adapters.iterdir()) == []
        # The same by transformers.
        adapter = tmp_path / "chosen"
        adapter.mkdir()
        for artifact in job.artifacts():
            if artifact.record.name.startswith("adapter_"):
                artifact.download(adapter / artifact.record.name)
        chosen = result["checkpoints"][result["chosen"]]["name"]
        prompt = f"user: how to {words[0]}\nassistant:"
        assert said[chosen][f"how to {words[0]}"] == by_transformers(model, adapter, prompt, 12)
        # A worker that was killed while it asked leaves the adapter loaded, and its folder.
        left = adapters / f"{lora_server.PREFIX}killed"
        shutil.copytree(adapter, left)
        body = {"lora_name": left.name, "lora_path": str(left)}
        httpx2.post(f"{declared.base_url}/load_lora_adapter", json=body, timeout=60)
        assert loaded() == ["tiny-llama", left.name]
        assert lora_server.sweep_adapters("tiny-llama", declared) == [], "it may be in use"
        old = time.time() - lora_server.STALE_SECONDS - 60
        os.utime(left, (old, old))
        # The sweeper that runs does it, within its round of a minute.
        deadline = time.monotonic() + 120
        while left.exists() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not left.exists()
        assert loaded() == ["tiny-llama"]
    stop(up)
