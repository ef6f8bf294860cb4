"""A small real experiment: what a tiny LLaVA learns from a choice of rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.finetuning.schedule import Plan
from methods.local import LocalContext
from methods.resume import ResumeStore
from methods.select_subset.job import run
from methods.select_subset.proxy.model.clip import Clip, ClipEncoder
from methods.select_subset.proxy.model.fine_tuning import fine_tune
from methods.select_subset.proxy.model.forward_readings import read_batch
from methods.select_subset.proxy.rows.conversations import turns_of
from methods.select_subset.proxy.rows.encoding import Batch, Encoded
from methods.select_subset.spec import Spec
from tests.toys import tiny_clip
from tests.toys import tiny_llava as tiny
from tests.toys.toy_vqa import (
    FACTS,
    QUESTIONS,
    WORDS,
    Facts,
    make_facts,
    make_test,
    write_tar,
)


@dataclass(frozen=True)
class Size:
    """How large an experiment is; the small one is a test."""

    rows: int = 3000
    steps: int = 400
    clusters: int | None = None
    budget: float = 0.1


SMALL = Size(rows=2000, steps=250, clusters=70)


#: From random weights both need a higher rate than fine-tuning does; neither was tuned further.
PROXY = {"epochs": 3, "checkpoints": 7, "learning_rate": 3e-3, "train_vision": True}


TARGET = Plan(checkpoints=1, rows=32, learning_rate=3e-3, vision=True)


def train_clip(folder: Path, pairs: Facts, seed: int, steps: int = 400) -> Path:
    """A CLIP of this world, trained from scratch on pairs that are not in the data.

    Of each fact there are two pairs; a batch has each fact once, so that no text is there twice.
    """
    if (folder / "clip").exists():
        return folder / "clip"
    parts = tiny_clip.processor(WORDS)
    model = tiny_clip.model(len(parts.tokenizer), hidden=32, seed=seed).train()
    encoder = ClipEncoder(parts, tiny_clip.LONGEST)
    rows = [
        encoder(turns_of(row, 1), [image])
        for row, image in zip(pairs.rows, pairs.images, strict=True)
    ]
    clip = Clip(model, encoder, 0, model.device)
    of_fact = np.argsort(pairs.fact, kind="stable").reshape(FACTS, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    rng = np.random.default_rng([seed, 6])
    for _ in range(steps):
        chosen = of_fact[np.arange(FACTS), rng.integers(2, size=FACTS)]
        batch = clip.tensors([rows[row] for row in chosen])
        model(**batch, return_loss=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder / "clip")
    parts.save_pretrained(folder / "clip")
    return folder / "clip"


class Experiment:
    """One seed: data, proxy and test set, shared by all methods."""

    def __init__(self, folder: Path, size: Size, seed: int) -> None:
        self.size, self.seed, self._folder = size, seed, folder
        self.facts, self.test = make_facts(size.rows, 0.75, seed), make_test(seed)
        tiny.save(folder / "proxy", WORDS, hidden=32, heads=4, kv_heads=4, seed=seed)
        write_tar(folder / "rows.tar", self.facts)
        # Two images of each fact that are neither trained on nor tested.
        others = make_facts(2 * FACTS, 0.0, seed + 2_000_000)
        write_tar(folder / "target.tar", others)
        self._others = others
        self._encoder = tiny.proxy(WORDS, hidden=16).encoder
        self._train = self._encoded(self.facts)
        self._tested = self._encoded(self.test)

    def _encoded(self, facts: Facts) -> list[Encoded]:
        pairs = zip(facts.rows, facts.images, strict=True)
        return [self._encoder(turns_of(row, 1), [image]) for row, image in pairs]

    def choose(self, method: str, params: dict[str, Any]) -> list[int]:
        """Rows that a job chooses, from data to indices; `all` is every row."""
        if method == "all":
            return list(range(self.size.rows))
        params = dict(params)
        attention = params.pop("attention", "model")
        spec: dict[str, Any] = {
            "dataset": {"input": "rows.tar", "format": "webdataset"},
            "budget": {"fraction": self.size.budget},
            "method": method,
            "params": params,
            "seed": self.seed,
            "output": {"what": ["indices"]},
        }
        if method == "clip_score":
            spec["model"] = {"name": str(train_clip(self._folder, self._others, self.seed))}
        elif method not in {"random", "stratified"}:
            name = str(self._folder / "proxy")
            spec["model"] = {"name": name, "fine_tune": PROXY, "attention": attention}
        if method in {"less", "icons"}:
            spec["target"] = {"input": "target.tar", "format": "webdataset", "task_field": "task"}
        if method in {"stratified", "presel"}:
            balance = "equal" if method == "stratified" else "none"
            spec["groups"] = {"field": "task", "balance": balance}
        parsed = Spec.model_validate(spec)
        chosen = run(parsed, LocalContext(self._folder, parsed)).indices
        assert chosen is not None, "few rows"
        return chosen

    def teach(self, chosen: list[int]) -> float:
        """Accuracy over all facts of a target that was trained on these rows only."""
        proxy = tiny.proxy(WORDS, hidden=48, heads=4, kv_heads=4, seed=self.seed + 77)
        epochs = self.size.steps * TARGET.rows / len(chosen)
        plan = Plan(**{**vars(TARGET), "epochs": epochs, "seed": self.seed})
        with tempfile.TemporaryDirectory() as scratch:
            fine_tune(
                proxy,
                lambda batches: ([self._train[chosen[p]] for p in batch] for batch in batches),
                len(chosen),
                plan,
                ResumeStore(LocalContext(Path(scratch)), "target"),
                lambda done, steps: None,
                lambda name, value, step: None,
            )
        right = np.concatenate(
            [
                read_batch(proxy, batch, frozenset({"correct"}))["correct"]
                for batch in self._batches(proxy.device)
            ]
        )
        return float(np.mean([right[self.test.fact == f].mean() for f in range(FACTS)]))

    def _batches(self, device: torch.device) -> Iterator[Batch]:
        for start in range(0, len(self._tested), 128):
            yield Batch.of(self._tested[start : start + 128], 0, device)

    def measure(self, method: str, params: dict[str, Any]) -> dict[str, float]:
        """Accuracy, share of near-copies and facts covered by a method's choice."""
        chosen = self.choose(method, params)
        return {
            "accuracy": self.teach(chosen),
            "redundant": float(self.facts.copy[chosen].mean()),
            "facts": float(len(set(self.facts.fact[chosen].tolist()))),
        }


def methods(size: Size) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every method."""
    k = {} if size.clusters is None else {"clusters": size.clusters}
    relevance = {"irs": {f"q{q}": 0.6 for q in range(QUESTIONS)}}
    plain = (
        "random",
        "stratified",
        "clip_score",
        "loss",
        "perplexity",
        "middle_perplexity",
        "el2n",
        "aum",
        "forgetting",
        "grand",
        "ccs",
        "d2",
    )
    return {
        "xmas": ("xmas", k),
        "xmas, within random": ("xmas", {**k, "within": "random"}),
        "xmas, within centroid": ("xmas", {**k, "within": "centroid"}),
        "xmas, official attention": ("xmas", {**k, "attention": "official"}),
        "all rows": ("all", {}),
        **{name: (name, {}) for name in plain},
        "s2l": ("s2l", k),
        "coincide": ("coincide", k),
        "semdedup": ("semdedup", k),
        "prototypes": ("prototypes", k),
        "presel": ("presel", relevance),
        "less": ("less", {}),
        "icons": ("icons", {}),
    }
