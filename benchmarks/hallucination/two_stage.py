"""Two-stage verification on real answers: what a second model adds at each budget.

The target is Gemma 3 270M, whose stored answers are in `examples/qa-gemma.jsonl`. The verifier is a
tiny Llama that this script trains on the right answers to a share of the questions: it knows some
of them and says something wrong about the others. Thresholds are fitted on one half of the items
by calibrate-scorer and used on the other half by score-hallucination, and the other way round.

    python -m benchmarks two_stage [--share 0.7] [--steps 400] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer

from methods.calibrate_scorer.job import run as calibrate
from methods.calibrate_scorer.spec import Spec as CalibrateSpec
from methods.local import LocalContext
from methods.score_hallucination.job import run as score
from methods.score_hallucination.spec import Spec
from tests.toys.tiny_models import tiny_llama

ITEMS = Path(__file__).parents[2] / "examples" / "qa-gemma.jsonl"
BUDGETS = (0.0, 0.1, 0.2, 0.4, 1.0)


def train(folder: Path, pairs: list[tuple[str, str]], steps: int) -> None:
    """Fine-tune the model in a folder on prompt and answer; the loss is the answer's."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    rng = np.random.default_rng(0)
    model.train()
    for step in range(steps):
        chosen = rng.choice(len(pairs), size=min(16, len(pairs)), replace=False)
        rows, labels = [], []
        for prompt, answer in (pairs[i] for i in chosen):
            asked, said = tokenizer(prompt)["input_ids"], tokenizer(f" {answer}\n")["input_ids"]
            rows.append([*asked, *said])
            labels.append([-100] * len(asked) + said)
        longest = max(map(len, rows))
        ids = torch.tensor([row + [1] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        wanted = torch.tensor([row + [-100] * (longest - len(row)) for row in labels])
        loss = model(input_ids=ids, attention_mask=mask, labels=wanted).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"  step {step}: loss {loss.item():.3f}", flush=True)
    model.eval().save_pretrained(folder)


def short(prompt: str) -> str:
    """The question without the examples before it: a tiny model has a short memory."""
    return prompt[prompt.rindex("Question:") :]


def answered(folder: Path, model: Path, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items with ten answers of the verifier each, drawn by the service's own sampler."""
    spec = Spec.model_validate(
        {
            "items": [{"id": item["id"], "prompt": short(item["prompt"])} for item in items],
            "sampler": {
                "model": str(model),
                "max_tokens": 24,
                "stop": ["\n"],
                "seed": 0,
                "greedy_answer": False,
            },
        }
    )
    context = LocalContext(folder, spec)
    score(spec, context)
    lines = (folder / "artifacts" / "responses.jsonl").read_text().splitlines()
    drawn = [[answer["text"] for answer in json.loads(line)["responses"]] for line in lines]
    return [item | {"verifier_responses": texts} for item, texts in zip(items, drawn, strict=True)]


def transferred(
    folder: Path, fitted: list[dict[str, Any]], used: list[dict[str, Any]], budget: float
) -> list[Any]:
    """Verifications of `used` with thresholds from `fitted`."""
    labels = {"labels": "graded", "scorers": ["mpd_self"]}
    spec = CalibrateSpec.model_validate(
        {"items": fitted, **labels, "two_stage": {"budget": budget, "scorer": "mpd_cross"}}
    )
    calibrator = calibrate(spec, LocalContext(folder, spec)).calibrator
    (folder / "calibrator.json").write_text(calibrator.model_dump_json())
    applied = Spec.model_validate(
        {
            "items": used,
            "scorers": ["mpd_self"],
            "calibrator": "calibrator.json",
            "verifier": {},
            "explain": "none",
        }
    )
    result = score(applied, LocalContext(folder, applied))
    path = folder / "work" / "verified.jsonl"
    lines = path.read_text().splitlines()
    assert result.summary.verification is not None
    return [json.loads(line) for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.7, help="of questions the verifier knows")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5, help="random halves")
    options = parser.parse_args()
    items = [json.loads(line) for line in ITEMS.read_text().splitlines()]
    rng = np.random.default_rng(0)
    known = rng.permutation(len(items))[: round(options.share * len(items))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_llama(folder / "verifier")
        pairs = [(short(items[i]["prompt"]), items[i]["references"][0]) for i in known]
        print(f"training a verifier on {len(pairs)} of {len(items)} questions ...", flush=True)
        train(model, pairs, options.steps)
        items = answered(folder, model, items)
        print("budget  asked         accuracy      AUROC, both   AUROC, stage one")
        for budget in BUDGETS:
            rows = []
            for repeat in range(options.repeats):
                order = np.random.default_rng(repeat).permutation(len(items))
                halves = [[items[i] for i in part] for part in np.array_split(order, 2)]
                found = [
                    *transferred(folder, halves[0], halves[1], budget),
                    *transferred(folder, halves[1], halves[0], budget),
                ]
                rows.append(quality(found))
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(*moments(rows), strict=True)]
            print(f"{budget:<7} " + " ".join(f"{cell:13}" for cell in cells))


def quality(found: list[Any]) -> list[float]:
    """Share asked, accuracy, and AUROC of both stages and of the first alone."""
    wrong = np.array([item["label"] for item in found], dtype=bool)
    verdict = np.array([item["verification"]["verdict"] == "hallucinated" for item in found])
    s1 = np.array([item["verification"]["s1"] for item in found])
    asked = np.array([item["verification"]["stage"] == 2 for item in found])
    s2 = np.array([item["verification"]["s2"] or 0.0 for item in found])
    # As two_stage.rank_score: below the band, in it, above it.
    above = ~asked & verdict
    rank = np.where(asked, s2 - 1, np.where(above, 1 + s1, s1 - 2))
    both = roc_auc_score(wrong, rank)
    return [asked.mean(), (verdict == wrong).mean(), both, roc_auc_score(wrong, s1)]


def moments(rows: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the columns."""
    table = np.array(rows)
    return table.mean(axis=0), table.std(axis=0)


if __name__ == "__main__":
    main()
