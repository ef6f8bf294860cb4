"""Scoring by NLI beside UQLM and LM-Polygraph: pairs, forward passes, padded tokens, time.

    python -m benchmarks nli [--uqlm PYTHON] [--lm-polygraph PYTHON]

PYTHON is the interpreter of an environment that has the peer; see docs/score-hallucination.md. All
get the same answers and the same NLI model: a DeBERTa of 6 layers x 384 with random weights, whose
verdict is fixed by its bias, since less is asked where answers entail each other. Each peer is
beside ours with the same scorers. Before anything is reported, the values must agree.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks._harness import timing
from benchmarks.hallucination._nli_peer import Counted, Items
from benchmarks.hallucination.nli_model import VERDICTS, make
from benchmarks.hallucination.score_hallucination import synthetic
from methods.inference.model_registry import ModelDeclaration
from methods.inference.nli import load_nli
from methods.score_hallucination.scoring.pairwise import RelateByNLI
from methods.score_hallucination.scoring.pipeline import (
    Answers,
    ItemScores,
    JudgedAnswer,
    Options,
    score,
)
from methods.score_hallucination.similarity.equivalence import Rule
from tests.toys import reporting

N = 10


@dataclass(frozen=True)
class Comparison:
    """The same scorers of a peer and of ours, by its rule of which answers mean the same."""

    title: str
    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    rule: Rule


_AGREEMENT = ("noncontradiction", "entailment", "exact_match")
COMPARISONS = {
    "uqlm": (
        Comparison(
            "four scorers",
            ("semantic_negentropy", *_AGREEMENT),
            ("discrete_semantic_entropy", *_AGREEMENT),
            "either",
        ),
        Comparison(
            "semantic entropy only",
            ("semantic_negentropy",),
            ("discrete_semantic_entropy",),
            "either",
        ),
    ),
    "lm-polygraph": (
        Comparison(
            "four scorers",
            ("NumSemSets", "EigValLaplacian", "DegMat", "LUQ"),
            ("num_semantic_sets", "eigv_laplacian", "degree_matrix", "luq"),
            "strict",
        ),
        Comparison("semantic sets only", ("NumSemSets",), ("num_semantic_sets",), "strict"),
    ),
}
COUNTS = ("pairs", "forwards", "padded_tokens")
CLOCKS = ("wall", "cpu")


class Peer:
    """A peer in its own interpreter, answering one request at a time."""

    def __init__(self, name: str, python: str, model: Path) -> None:
        driver = Path(__file__).with_name("_nli_peer.py")
        self._process = subprocess.Popen(
            [python, str(driver), name, str(model)], stdin=-1, stdout=-1, text=True
        )
        self.versions = self._read()

    def ask(self, items: Items, scorers: Sequence[str], instant: bool) -> dict[str, Any]:
        """Score items once; time, counts and values."""
        assert self._process.stdin is not None
        request = {"items": items, "scorers": scorers, "instant": instant}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended; its message is above")
        return json.loads(line)


def ours(model: Path, items: Items, comparison: Comparison, instant: bool) -> dict[str, Any]:
    """What a peer's driver answers, of ours."""
    engine = load_nli(ModelDeclaration(path=str(model)))
    counted = Counted(engine._model, instant)
    relate = RelateByNLI(engine)
    options = Options(comparison.ours, kind="nli", relate=relate, rule=comparison.rule)
    answers = [Answers(texts, judged=JudgedAnswer(texts[0])) for texts in items]
    cpu, wall = time.process_time(), time.perf_counter()
    scored = score(answers, options)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "counts": counted.counts(), "values": scored}


def agree(comparison: Comparison, scored: list[ItemScores], values: dict[str, Any]) -> None:
    """Ours against a peer's values, where both define them alike."""
    for scorer in {"noncontradiction", "entailment"} & set(comparison.theirs):
        # Ours has the judged answer among the samples too, where it agrees with itself.
        found = [(item.values[scorer] * N - 1) / (N - 1) for item in scored]
        np.testing.assert_allclose(found, values[scorer], atol=1e-5)
    if "LUQ" in comparison.theirs:
        entail = np.array(values["entail"])
        expected = (entail + entail.swapaxes(1, 2)) / 2
        matrices = np.stack([item.similarity for item in scored])
        # It asks the model whether an answer entails itself; for us it does.
        different = matrices != 1.0
        np.testing.assert_allclose(matrices[different], expected[different], atol=1e-5)


def compare(
    peer: Peer, model: Path, comparison: Comparison, share: float, args: argparse.Namespace
) -> dict[str, Any]:
    """Counts of many items, with a model that answers at once; times of a few with the model."""

    def both(items: Items, instant: bool) -> dict[str, dict[str, Any]]:
        return {
            "ours": ours(model, items, comparison, instant),
            "theirs": peer.ask(items, comparison.theirs, instant),
        }

    counted = both(synthetic(args.items, N, share, seed=7), True)
    few = synthetic(args.timed, N, share, seed=8)
    rounds = [both(few, False) for _ in range(args.repeats)]
    agree(comparison, rounds[0]["ours"]["values"], rounds[0]["theirs"]["values"])
    return {
        who: {
            **counted[who]["counts"],
            **{clock: median(turn[who][clock] for turn in rounds) for clock in CLOCKS},
        }
        for who in ("ours", "theirs")
    }


def overhead(
    peer: Peer, model: Path, comparison: Comparison, calls: int
) -> dict[str, dict[str, float]]:
    """Seconds of a call with one item and a model that answers at once."""
    items = synthetic(1, N, 0.0, seed=0)
    ours(model, items, comparison, True)
    rounds = [
        (ours(model, items, comparison, True), peer.ask(items, comparison.theirs, True))
        for _ in range(calls)
    ]
    return {
        who: {clock: median(turn[side][clock] for turn in rounds) for clock in CLOCKS}
        for side, who in enumerate(("ours", "theirs"))
    }


def run(name: str, python: str, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for verdict in VERDICTS:
        model = make(folder / verdict, verdict)
        peer = Peer(name, python, model)
        for comparison in COMPARISONS[name]:
            for share in args.duplicates:
                row = compare(peer, model, comparison, share, args)
                about = {"scorers": comparison.title, "verdict": verdict, "duplicates": share}
                rows.append(about | row)
        fixed = overhead(peer, model, COMPARISONS[name][0], args.calls)
        peer.close()
    return {"name": name, "versions": peer.versions, "overhead": fixed, "rows": rows}


def show(found: dict[str, Any]) -> None:
    header = ["", "answers", "duplicates", "pairs", "passes", "padded tokens"]
    header += [f"x ours, {what}" for what in ("pairs", "passes", "tokens", "wall", "CPU")]
    rows = [
        [
            row["scorers"],
            row["verdict"],
            f"{row['duplicates']:.0%}",
            *(f"{row['ours'][key]:,}" for key in COUNTS),
            *(f"{row['theirs'][key] / row['ours'][key]:.2f}" for key in (*COUNTS, *CLOCKS)),
        ]
        for row in found["rows"]
    ]
    name, fixed = found["name"], found["overhead"]
    print(f"\n{name} {found['versions'][name]}\n\n{reporting.table(header, rows)}")
    for clock in CLOCKS:
        own, other = fixed["ours"][clock], fixed["theirs"][clock]
        print(
            f"One call of four scorers, instant model, {clock}: ours {timing.seconds(own)}, "
            f"{name} {timing.seconds(other)}, {other / own:.3g} times as much"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uqlm", metavar="PYTHON", help="of an environment with uqlm")
    parser.add_argument("--lm-polygraph", metavar="PYTHON", help="of one with lm-polygraph")
    parser.add_argument("--items", type=int, default=100, help="that are counted")
    parser.add_argument("--timed", type=int, default=6, help="items that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--calls", type=int, default=20, help="of the fixed overhead")
    parser.add_argument("--duplicates", type=float, nargs="+", default=(0.0, 0.5, 0.9))
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory(prefix="datassay-bench-") as folder:
        for name, python in (("uqlm", args.uqlm), ("lm-polygraph", args.lm_polygraph)):
            if python is None or not Path(python).exists():
                print(f"{name}: left out, no interpreter {python or 'was given'}")
                continue
            found.append(run(name, python, Path(folder), args))
            show(found[-1])
    if found:
        about = {"items": args.items, "timed": args.timed, "answers": N}
        print(f"\n{reporting.write('nli', found, **about)}")


if __name__ == "__main__":
    main()
