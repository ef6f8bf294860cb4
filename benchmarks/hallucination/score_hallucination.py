"""SNNE from raw text: this project beside the `rouge_score` package and the official repository.

    python -m benchmarks score_hallucination [--snne FOLDER]

Ours scores all prompts in one call, as the job does. `rouge_score` is looped over the pairs of an
item and followed by a numpy SNNE. FOLDER is a checkout of github.com/BigML-CS-UCLA/SNNE, whose own
`lexical_similarity_matrix` and `snne` then run. Before anything is timed, all must agree.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import types
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator

from benchmarks._harness import timing
from methods.score_hallucination.scoring.pipeline import Answers, Options, score
from tests.toys import reporting

Prompts = list[list[str]]
Peer = Callable[[Sequence[str]], float]

SIZES = (5, 10, 20, 50)
#: How many pairs a slow peer compares in one repeat; the rest of the prompts are like these.
PAIRS = {"rouge_score": 3000, "SNNE repository": 90}
OURS, UNICODE = "ours", "ours, unicode tokens"


def synthetic(prompts: int, answers: int, duplicates: float, seed: int) -> Prompts:
    """Answers of 5 to 25 words; a share of them repeats an earlier answer of the same prompt.

    The others change some words of the prompt's first answer, as samples of a model do. Words are
    drawn by Zipf's law from 2,000.
    """
    rng = random.Random(seed)
    words = [f"{'bcdfghklmnprst'[k % 14]}{'aeiou'[k % 5]}{k}" for k in range(2000)]
    weights = [1 / (k + 1) for k in range(len(words))]

    def drawn(count: int) -> list[str]:
        return rng.choices(words, weights, k=count)

    result = []
    for _ in range(prompts):
        base = drawn(rng.randint(5, 25))
        texts = [" ".join(base)]
        while len(texts) < answers:
            if rng.random() < duplicates:
                texts.append(rng.choice(texts))
                continue
            sample = [drawn(1)[0] if rng.random() < 0.3 else word for word in base]
            cut = rng.randint(0, 3)
            sample = (sample[: len(sample) - cut] + drawn(rng.randint(0, 3)))[:25]
            texts.append(" ".join(sample if len(sample) >= 5 else sample + drawn(5)))
        result.append(texts)
    return result


def ours(prompts: Prompts, tokenizer: Any = "paper") -> list[float]:
    options = Options(scorers=("snne",), tokenizer=tokenizer)
    return [item.values["snne"] for item in score([Answers(texts) for texts in prompts], options)]


def numpy_snne(matrix: Any) -> float:
    return float(-np.log(np.exp(matrix).sum(axis=1)).mean())


def rouge_score_peer() -> Peer:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)

    def peer(texts: Sequence[str]) -> float:
        matrix = np.eye(len(texts))
        for i in range(len(texts) - 1):
            for j in range(i + 1, len(texts)):
                matrix[i, j] = matrix[j, i] = scorer.score(texts[i], texts[j])["rougeL"].fmeasure
        return numpy_snne(matrix)

    return peer


class AggregatedRouge:
    """What `evaluate.load("rouge").compute` does for one pair, less its Arrow data set.

    The library fetches that wrapper from a hub; where it cannot, this is a lower bound of its time.
    """

    def __init__(self) -> None:
        self._scorer = RougeScorer(["rougeL"], use_stemmer=False)

    def compute(self, predictions: list[str], references: list[str], **_: Any) -> dict[str, float]:
        aggregator = BootstrapAggregator()
        for prediction, reference in zip(predictions, references, strict=True):
            aggregator.add_scores(self._scorer.score(reference, prediction))
        return {"rougeL": aggregator.aggregate()["rougeL"].mid.fmeasure}


def official_peer(folder: Path) -> tuple[Peer, str]:
    """The official functions, and in words what stands in for what is not installed.

    Raises:
        ImportError: the folder has no such module, or it needs something else.
    """
    notes = []
    real = find_spec("torch") is not None
    if not real:
        # `lexical_similarity_matrix` takes nothing from torch but an identity matrix to fill.
        shim = types.ModuleType("torch")
        shim.eye = np.eye  # type: ignore[attr-defined]
        sys.modules["torch"] = shim
        notes.append("no torch: its identity matrix and snne() are numpy's")
    sys.path.insert(0, str(folder))
    try:
        official = importlib.import_module("snne.uncertainty.utils.entropy_utils")
    finally:
        sys.path.remove(str(folder))
        if not real:
            del sys.modules["torch"]
    try:
        import evaluate  # type: ignore[import-not-found]

        rouge = evaluate.load("rouge", keep_in_memory=True)
    except (ImportError, OSError):
        rouge = AggregatedRouge()
        notes.append("no evaluate: rouge_score and its aggregator, without the Arrow data set")

    def peer(texts: Sequence[str]) -> float:
        matrix = official.lexical_similarity_matrix(rouge, list(texts))
        if not real:
            return numpy_snne(matrix)
        labels = [0] * len(texts)
        return float(official.snne(matrix, labels, variant="only_denom", exclude_diagonal=False))

    return peer, "; ".join(notes)


def looped(peer: Peer, prompts: Prompts) -> Callable[[], object]:
    return lambda: [peer(texts) for texts in prompts]


def compare(
    n: int, duplicates: float, peers: dict[str, Peer], args: argparse.Namespace
) -> list[dict[str, Any]]:
    prompts = synthetic(args.prompts, n, duplicates, seed=n)
    contenders: dict[str, tuple[Callable[[], object], int]] = {
        OURS: (lambda: ours(prompts), len(prompts)),
        UNICODE: (lambda: ours(prompts, "unicode"), len(prompts)),
    }
    pairs = n * (n - 1) // 2
    expected = ours(prompts)
    skipped = []
    for name, peer in peers.items():
        if name != "rouge_score" and pairs > 2 * PAIRS[name] + 10:
            skipped.append(name)
            continue
        some = prompts[: max(1, min(len(prompts), PAIRS[name] // pairs))]
        np.testing.assert_allclose([peer(texts) for texts in some], expected[: len(some)], 1e-6)
        contenders[name] = (looped(peer, some), len(some))
    timings = timing.interleave(contenders, args.repeats)
    rows = []
    for name, timed in timings.items():
        rows.append(
            {
                "n": n,
                "duplicates": duplicates,
                "contender": name,
                "prompts": contenders[name][1],
                **timing.flat(timed),
                "wall_ratio": timed.wall / timings[OURS].wall,
                "cpu_ratio": timed.cpu / timings[OURS].cpu,
            }
        )
    for name in skipped:
        print(f"n = {n}: {name} left out, a prompt takes too long", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snne", type=Path, metavar="FOLDER", help="checkout of the official code")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--duplicates", type=float, nargs="+", default=(0.4, 0.0), metavar="SHARE")
    args = parser.parse_args()

    peers: dict[str, Peer] = {"rouge_score": rouge_score_peer()}
    note = "not asked for; give its checkout with --snne FOLDER"
    if args.snne is not None:
        try:
            peers["SNNE repository"], note = official_peer(args.snne)
        except ImportError as error:
            note = f"left out: {error}"
    print(f"SNNE repository: {note or 'as it is'}\n")

    rows: list[dict[str, Any]] = []
    for duplicates in args.duplicates:
        for n in args.sizes:
            rows += compare(n, duplicates, peers, args)
    print(
        reporting.table(
            [
                "",
                "n",
                "duplicates",
                "prompts",
                "wall a prompt",
                "CPU a prompt",
                "x ours, wall",
                "x ours, CPU",
            ],
            [
                [
                    row["contender"],
                    str(row["n"]),
                    f"{row['duplicates']:.0%}",
                    str(row["prompts"]),
                    timing.seconds(row["wall"]),
                    timing.seconds(row["cpu"]),
                    f"{row['wall_ratio']:.3g}",
                    f"{row['cpu_ratio']:.3g}",
                ]
                for row in rows
            ],
        )
    )
    path = reporting.write("score_hallucination", rows, snne_repository=note, repeats=args.repeats)
    print(f"\n{path}")


if __name__ == "__main__":
    main()
