"""The NLI engine on each device and in each precision: pairs a second, and whether they agree.

    python -m benchmarks nli_devices [--model FOLDER] [--questions 100]

Without a model it takes the one of `nli.py`: a DeBERTa of 6 layers x 384 with random weights. Ten
answers a question, half of them duplicates; all pairs of different answers, in turn on each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import torch

from benchmarks.hallucination.nli_model import make
from benchmarks.hallucination.score_hallucination import synthetic
from methods.inference.model_registry import ModelDeclaration
from methods.inference.nli import NLI, load_nli
from tests.toys.reporting import table, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--questions", type=int, default=100)
    args = parser.parse_args()
    pairs = [
        pair
        for answers in synthetic(args.questions, 10, 0.5, seed=0)
        for pair in permutations(answers, 2)
    ]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or make(Path(folder) / "nli", "different")
        contenders = {name: load(model, *name) for name in settings()}
        rows = measure(contenders, pairs)
    header = ["device and precision", "pairs scored", "passes", "a second", "largest difference"]
    lines = [
        [r["name"], str(r["scored"]), str(r["forwards"]), f"{r['rate']:.0f}", f"{r['differs']:.1e}"]
        for r in rows
    ]
    print(table(header, lines))
    write("nli_devices", rows, torch=torch.__version__)


def settings() -> list[tuple[str, str]]:
    """The reference first."""
    cpu = [("cpu", "float32")]
    return cpu + [("cuda", d) for d in ("float32", "bfloat16") if torch.cuda.is_available()]


def load(model: Path, device: str, dtype: str) -> NLI:
    engine = load_nli(ModelDeclaration(path=str(model), dtype=dtype))  # type: ignore[arg-type]
    engine._model.to(device)
    return engine


def measure(
    contenders: dict[tuple[str, str], NLI], pairs: list[tuple[str, str]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    reference: Any = None
    for name, engine in contenders.items():
        engine.probabilities(pairs[: len(pairs) // 10])  # kernels are chosen
        engine._cache.clear()
        before = vars(engine.cost).copy()
        began = time.perf_counter()
        found = engine.probabilities(pairs)  # ends on the CPU
        spent = time.perf_counter() - began
        reference = found if reference is None else reference
        scored = engine.cost.scored - before["scored"]
        rows.append(
            {
                "name": " ".join(name),
                "scored": scored,
                "rate": scored / spent,
                "forwards": engine.cost.forwards - before["forwards"],
                "differs": float(abs(found - reference).max()),
            }
        )
    return rows


if __name__ == "__main__":
    main()
