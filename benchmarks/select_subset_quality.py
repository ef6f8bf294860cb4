"""Does a chosen tenth teach more than a random tenth? Prints a table, writes JSON.

    python benchmarks/select_subset_quality.py                     # every method, 5 seeds
    python benchmarks/select_subset_quality.py --methods random,xmas --seeds 1 --small

The data: images of 12 hues, 8 questions about each, 96 facts with an answer word each. Three rows
in four are near-copies of 12 rows; the rest is spread evenly over the facts. A proxy LLaVA is
fine-tuned on all rows by the job itself, which then chooses 10 %; a larger LLaVA is trained from
scratch on the choice, the same number of steps whatever the choice. The score is its mean accuracy
over all facts on images that it has not seen.
"""

from __future__ import annotations

import argparse
import colorsys
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.context import LocalContext
from methods.select_subset.job import run
from methods.select_subset.proxy.conversations import turns_of
from methods.select_subset.proxy.encoding import Batch, Encoded
from methods.select_subset.proxy.extract import read_batch
from methods.select_subset.proxy.kept import Kept
from methods.select_subset.proxy.training import Plan, fine_tune
from methods.select_subset.spec import Spec
from tests.methods import tiny_llava as tiny

RESULTS = Path(__file__).parent / "results"
QUESTIONS, HUES, TEMPLATES = 8, 12, 12
FACTS = QUESTIONS * HUES
_PHRASES = ("q{0}", "tell q{0} now", "please say the q{0}")
WORDS = [
    "tell", "now", "please", "say", "the",
    *(f"q{q}" for q in range(QUESTIONS)),
    *(f"answer{f}" for f in range(FACTS)),
]  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How large an experiment is; the small one is a test."""

    rows: int = 3000
    steps: int = 400
    clusters: int = 100
    budget: float = 0.1


SMALL = Size(rows=2000, steps=250, clusters=70)
#: From random weights both need a higher rate than fine-tuning does; neither was tuned further.
PROXY = {"epochs": 3, "checkpoints": 7, "learning_rate": 3e-3, "train_vision": True}
TARGET = Plan(checkpoints=1, rows=32, learning_rate=3e-3, vision=True)


@dataclass
class Facts:
    """A data set: pictures, questions and answers, with what only the experiment knows.

    Attributes:
        fact: (N,) 0 to 95. copy: (N,) rows that are near-copies of a template.
    """

    rows: list[dict[str, Any]]
    images: list[bytes]
    fact: np.ndarray[Any, np.dtype[np.int64]]
    copy: np.ndarray[Any, np.dtype[np.bool_]]


def picture(hue: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One hue of some brightness, with a dark patch somewhere."""
    colour = np.array(colorsys.hsv_to_rgb(hue / HUES, 1, rng.uniform(0.6, 1)))
    image = np.tile(colour, (tiny.SIZE, tiny.SIZE, 1))
    top, left = rng.integers(0, tiny.SIZE - 8, 2)
    image[top : top + 8, left : left + 8] *= 0.3
    return image


def as_png(image: np.ndarray[Any, Any], rng: np.random.Generator) -> bytes:
    """With pixel noise."""
    from PIL import Image

    noisy = np.clip(image + 0.05 * rng.normal(size=image.shape), 0, 1)
    buffer = io.BytesIO()
    Image.fromarray((255 * noisy).round().astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def row_of(number: int, fact: int, phrase: int) -> dict[str, Any]:
    """A conversation about a fact."""
    question = _PHRASES[phrase].format(fact % QUESTIONS)
    turns = [
        {"from": "human", "value": f"<image>\n{question}"},
        {"from": "gpt", "value": f"answer{fact}"},
    ]
    return {"id": f"{number:05}", "task": f"q{fact % QUESTIONS}", "conversations": turns}


def make_facts(count: int, copies: float, seed: int) -> Facts:
    """`copies` of the rows are near-copies of 12 templates, the others even over the facts."""
    rng = np.random.default_rng([seed, 5])
    templates = rng.choice(FACTS, TEMPLATES, replace=False)
    pictures = [picture(int(fact) // QUESTIONS, rng) for fact in templates]
    phrases = rng.integers(3, size=TEMPLATES)
    copied = rng.permutation(np.arange(count) < round(copies * count))
    own = rng.permutation(np.arange(int((~copied).sum())) % FACTS)
    facts = np.zeros(count, dtype=np.int64)
    facts[~copied] = own
    rows, images = [], []
    for number in range(count):
        if copied[number]:
            which = int(rng.integers(TEMPLATES))
            facts[number] = templates[which]
            image, phrase = pictures[which], int(phrases[which])
        else:
            image, phrase = picture(int(facts[number]) // QUESTIONS, rng), int(rng.integers(3))
        rows.append(row_of(number, int(facts[number]), phrase))
        images.append(as_png(image, rng))
    return Facts(rows, images, facts, copied)


def make_test(seed: int) -> Facts:
    """8 new images of every fact."""
    return make_facts(8 * FACTS, 0.0, seed + 1_000_000)


def write_tar(path: Path, facts: Facts) -> None:
    """As a WebDataset."""
    with tarfile.open(path, "w") as archive:
        for row, image in zip(facts.rows, facts.images, strict=True):
            for ending, data in (("json", json.dumps(row).encode()), ("png", image)):
                member = tarfile.TarInfo(f"{row['id']}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


class Experiment:
    """One seed: data, proxy and test set, shared by all methods."""

    def __init__(self, folder: Path, size: Size, seed: int) -> None:
        self.size, self.seed, self._folder = size, seed, folder
        self.facts, self.test = make_facts(size.rows, 0.75, seed), make_test(seed)
        tiny.save(folder / "proxy", WORDS, hidden=32, heads=4, kv_heads=4, seed=seed)
        write_tar(folder / "rows.tar", self.facts)
        # Two images of each fact that are neither trained on nor tested.
        write_tar(folder / "target.tar", make_facts(2 * FACTS, 0.0, seed + 2_000_000))
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
        if method not in {"random", "stratified"}:
            name = str(self._folder / "proxy")
            spec["model"] = {"name": name, "fine_tune": PROXY, "attention": attention}
        if method in {"less", "icons"}:
            spec["target"] = {
                "input": "target.tar", "format": "webdataset", "task_field": "task"
            }  # fmt: skip
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
                Kept(LocalContext(Path(scratch)), "target"),
                lambda done, steps: None,
            )
        right = np.concatenate([
            read_batch(proxy, batch, frozenset({"correct"}))["correct"]
            for batch in self._batches(proxy.device)
        ])  # fmt: skip
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
    """Every method that needs no features from elsewhere."""
    k = {"clusters": size.clusters}
    relevance = {"irs": {f"q{q}": 0.6 for q in range(QUESTIONS)}}
    plain = (
        "random", "stratified", "loss", "middle_perplexity", "el2n", "aum", "forgetting",
        "grand", "ccs", "d2",
    )  # fmt: skip
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


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half width of the 95 % interval by Student's t."""
    from scipy.stats import t

    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    spread = float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return float(np.mean(values)), float(t.ppf(0.975, len(values) - 1) * spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", type=lambda text: text.split(","))
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    size = SMALL if args.small else Size()
    chosen = {n: m for n, m in methods(size).items() if not args.methods or n in args.methods}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for seed in range(args.seeds):
        with tempfile.TemporaryDirectory() as folder:
            experiment = Experiment(Path(folder), size, seed)
            for name, (method, params) in chosen.items():
                start = time.process_time()
                measured = experiment.measure(method, params)
                found[name].append(measured)
                seconds = time.process_time() - start
                print(f"seed {seed} {name:<24}{measured}  {seconds:.1f} CPU-s", flush=True)
        _write(found, size, "-small" if args.small else "-some" if args.methods else "")
    for name, runs in sorted(found.items(), key=lambda item: -interval(_of(item[1]))[0]):
        mean, half = interval(_of(runs))
        copies = np.mean([r["redundant"] for r in runs])
        covered = np.mean([r["facts"] for r in runs])
        print(f"| `{name}` | {mean:.3f} ± {half:.3f} | {copies:.2f} | {covered:.0f} |")


def _of(runs: list[dict[str, float]]) -> list[float]:
    return [run["accuracy"] for run in runs]


def _write(found: dict[str, Any], size: Size, ending: str) -> None:
    RESULTS.mkdir(exist_ok=True)
    name = f"select_subset_quality{ending}.json"
    content = {
        "size": vars(size),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "runs": found,
    }
    (RESULTS / name).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
