"""Sampling through vLLM beside the sampler in this process: same model, same requests.

    python -m benchmarks sampling --model FOLDER [--vllm PYTHON] [--prompts 40]

Draws ten answers for real prompts of `examples/` through each, as a score-hallucination job does;
FOLDER has weights as safetensors. PYTHON is of the environment that `make vllm` builds. A third
contender is the sampler that computes a prompt anew for every answer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from benchmarks._harness import timing
from methods.inference import generate
from methods.inference.completion import Sampling, Usage
from methods.inference.generate import load_generator
from methods.inference.kv_cache import shared_prefix
from methods.inference.llm import LanguageModel
from methods.inference.model_registry import ModelDeclaration
from methods.inference.openai_server import OpenAIServer
from server.vllm import VLLM
from tests.toys import reporting

ROOT = Path(__file__).parents[2]
SAMPLING = Sampling(n=10, temperature=1.0, max_tokens=16)
_START_SECONDS = 900.0


def questions(count: int, prefix: str) -> list[tuple[int, str]]:
    """Numbered prompts, taken evenly from both kinds of question."""
    lines = (ROOT / "examples" / "qa-gemma.jsonl").read_text().splitlines()
    chosen = lines[:: max(1, len(lines) // count)][:count]
    return [(number, prefix + json.loads(line)["prompt"]) for number, line in enumerate(chosen)]


def draw(
    model: LanguageModel, prompts: list[tuple[int, str]], server: int | None
) -> dict[str, Any]:
    """Sample once; wall and CPU seconds, a server's too, tokens and some answers."""
    usage = Usage()
    cpu, wall = _cpu(server), time.perf_counter()
    drawn = dict(model.sample(prompts, SAMPLING, usage, lambda: None))
    cpu, wall = _cpu(server) - cpu, time.perf_counter() - wall
    assert all(len(drawn[number]) == SAMPLING.n for number, _ in prompts)
    return {
        "wall": wall,
        "cpu": cpu,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "tokens_per_second": usage.completion_tokens / wall,
        "answers": [answer.text for answer in drawn[0]],
    }


def _cpu(server: int | None) -> float:
    """CPU seconds of this process so far, and of a server with its children."""
    total = time.process_time()
    if server is not None:
        process = psutil.Process(server)
        for each in (process, *process.children(recursive=True)):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def served(args: argparse.Namespace, log: Path, use: Callable[[LanguageModel, int], None]) -> None:
    """Start vLLM, use it, end it."""
    vllm = VLLM.prepare(str(args.model.resolve()), log, args.vllm, args.vllm_arguments)
    process = vllm.start()
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not vllm.healthy():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"vLLM does not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.5)
        use(OpenAIServer(vllm.name, ModelDeclaration(base_url=f"{vllm.url}/v1")), process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="default: of .venv-vllm")
    parser.add_argument("--vllm-arguments", default="", help="further ones, in shell syntax")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=1, help="in turn; medians are shown")
    parser.add_argument("--prefix", default="<bos>", help="before every prompt")
    args = parser.parse_args()
    prompts = questions(args.prompts, args.prefix)
    rows: dict[str, list[dict[str, Any]]] = {}

    def all_of_them(server: LanguageModel, pid: int) -> None:
        own = load_generator(ModelDeclaration(path=str(args.model)))
        sharing = shared_prefix
        for turn in range(args.repeats):
            for name, model, process in (
                ("vLLM", server, pid),
                ("transformers", own, None),
                ("transformers, prompts computed for each answer", own, None),
            ):
                anew = name.endswith("answer")
                vars(generate)["shared_prefix"] = _no_prefix if anew else sharing
                if not turn:
                    draw(model, prompts[:2], process)  # the first passes are slower
                rows.setdefault(name, []).append(draw(model, prompts, process))
                print(f"{name}: {rows[name][-1]}", file=sys.stderr)

    with tempfile.TemporaryDirectory(prefix="datassay-bench-") as folder:
        served(args, Path(folder) / "vllm.log", all_of_them)
    show(rows, len(prompts))
    found = [
        {"contender": name, "turn": turn, **row}
        for name, turns in rows.items()
        for turn, row in enumerate(turns)
    ]
    print(f"\n{reporting.write('sampling', found, model=args.model.name)}")


def show(rows: dict[str, list[dict[str, Any]]], prompts: int) -> None:
    """Medians over the turns, and how many times as much a token costs as with vLLM."""
    header = ["", "prompts", "answers", "tokens", "wall", "CPU", "tokens/s", "tokens/CPU s"]
    table, first = [], None
    for name, turns in rows.items():
        wall, cpu = (
            median(row[clock] / row["completion_tokens"] for row in turns)
            for clock in ("wall", "cpu")
        )
        first = first or (wall, cpu)
        table.append(
            [
                name,
                *(str(prompts), str(prompts * SAMPLING.n), str(turns[0]["completion_tokens"])),
                *(timing.seconds(median(row[clock] for row in turns)) for clock in ("wall", "cpu")),
                *(f"{1 / wall:.1f}", f"{1 / cpu:.1f}"),
                *(f"{wall / first[0]:.2f}", f"{cpu / first[1]:.2f}"),
            ]
        )
    print(reporting.table([*header, "x vLLM, wall", "x vLLM, CPU"], table))


def _no_prefix(*_: Any) -> None:
    """Nothing is shared."""


if __name__ == "__main__":
    main()
