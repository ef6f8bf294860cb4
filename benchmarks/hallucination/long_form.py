"""Whether the sentence that is wrong is found in a paragraph of real sentences.

    python -m benchmarks long_form --nli FOLDER [--sentences 4] [--seed 0]

The 60 questions of `examples/qa-gemma.jsonl` that want a sentence are put together, some at a
time: the judged answer of a paragraph is their judged answers one after the other, its k-th sample
their k-th samples. A sentence is wrong where its question's answer is. `granularity: sentence`
scores each by its support among the sample paragraphs; `alone` is the support of the same sentences
by their own question's samples only. AUROC over all sentences with its 95 % bootstrap interval;
beside it the paragraphs' own scores against whether any of their sentences is wrong.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.inference.model_registry import Models, declarations
from methods.local import LocalContext
from methods.score_hallucination.evaluation.ranking import bootstrap
from methods.score_hallucination.job import run
from methods.score_hallucination.result import Result
from methods.score_hallucination.spec import Spec
from tests.toys.reporting import table, write

ITEMS = Path(__file__).parents[2] / "examples" / "qa-gemma.jsonl"


def sentence(text: str) -> str:
    """One sentence out of an answer: its first line, with a full stop."""
    line = text.strip().split("\n")[0].strip()
    return line if line.endswith((".", "!", "?")) else line + "."


def paragraphs(items: list[dict[str, Any]], size: int, seed: int) -> list[list[dict[str, Any]]]:
    """The items in random groups of a size."""
    order = np.random.default_rng(seed).permutation(len(items)).tolist()
    return [[items[k] for k in order[a : a + size]] for a in range(0, len(order), size)]


def together(group: list[dict[str, Any]]) -> dict[str, Any]:
    """One item of several questions."""
    samples = zip(*([r["text"] for r in item["responses"]] for item in group), strict=True)
    return {
        "answer": " ".join(sentence(item["answer"]["text"]) for item in group),
        "responses": [" ".join(map(sentence, texts)) for texts in samples],
        "label": int(any(item["label"] for item in group)),
    }


def scored(folder: Path, models: Models, items: list[dict[str, Any]]) -> Result:
    spec = Spec.model_validate(
        {
            "items": items,
            "similarity": {"kind": "nli", "model": "nli"},
            "granularity": "sentence",
            "scorers": ["long_form_mean", "long_form_min", "snne", "luq"],
            "explain": "none",
        }
    )
    return run(spec, LocalContext(folder, spec, models=models))


def supports(result: Result) -> list[list[float]]:
    assert result.items is not None
    return [[unit.support or 0.0 for unit in item.units or []] for item in result.items]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nli", type=Path, metavar="FOLDER", required=True)
    parser.add_argument("--sentences", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    read = [json.loads(line) for line in ITEMS.read_text().splitlines()]
    items = [item for item in read if item["metadata"]["kind"] == "one sentence"]
    models = Models(declarations({"nli": {"path": str(args.nli)}}))
    groups = paragraphs(items, args.sentences, args.seed)
    with tempfile.TemporaryDirectory(prefix="datassay-bench-") as name:
        folder = Path(name)
        whole = scored(folder / "together", models, [together(group) for group in groups])
        alone = scored(folder / "alone", models, [together([item]) for item in items])
    units = supports(whole)
    kept = [k for k, group in enumerate(groups) if len(units[k]) == len(group)]
    value = np.array([one for k in kept for one in units[k]])
    right = np.array([1.0 - item["label"] for k in kept for item in groups[k]])
    own = np.array([np.mean(one) if one else 0.0 for one in supports(alone)])
    truth = np.array([1.0 - item["label"] for item in items])
    rows = [
        ("sentences in their paragraph", value, right),
        ("the same sentences alone", own, truth),
    ]
    records = []
    for label, support, labels in rows:
        auroc = bootstrap(-support, labels, np.random.default_rng(0))["auroc"]
        wrong = int((labels == 0).sum())
        records.append({"scored": label, "n": len(labels), "wrong": wrong, **auroc.model_dump()})
    for scorer, summary in whole.summary.scorers.items():
        found = summary.evaluation
        if found is not None:
            records.append(
                {
                    "scored": f"paragraphs by {scorer}",
                    "n": found.n,
                    "wrong": found.n_hallucinated,
                    **found.auroc.model_dump(),
                }
            )
    cells = [
        [
            str(one["scored"]),
            str(one["n"]),
            str(one["wrong"]),
            "none" if one["value"] is None else f"{one['value']:.3f}",
            "none" if one["low"] is None else f"[{one['low']:.3f}, {one['high']:.3f}]",
        ]
        for one in records
    ]
    print(table(["scored", "n", "wrong", "AUROC", "95 %"], cells))
    print(write("long_form", records, sentences=args.sentences, seed=args.seed))


if __name__ == "__main__":
    main()
