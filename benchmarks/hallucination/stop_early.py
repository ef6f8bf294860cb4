"""What sequential sampling saves on real answers, and how often its verdict is that of all ten.

    python -m benchmarks stop_early

The ten stored answers of every question of `examples/qa-gemma.jsonl` are put in random orders and
"drawn" one round after another, with the decision function of the product. A verdict is the side of
the threshold on which the confidence lies; in `agree` it is compared with that of all ten answers,
which knows the very answers that the rule saw: a fresh ten would agree with them less. So `fresh`
is what two halves of the answers, five each, agree in: the noise of a verdict without any stopping.
`AUROC` is that of the confidence where the rule stopped, `of all` that of all ten.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from methods.score_hallucination.answers.early_stopping import decided
from methods.score_hallucination.evaluation.ranking import evaluate
from methods.score_hallucination.schema.early_stopping import StopEarly
from methods.score_hallucination.scoring.pipeline import Answers, Options, score
from tests.toys.reporting import table, write

EXAMPLES = Path(__file__).parents[2] / "examples"
N, MIN_N, STEP = 10, 4, 2


def confidences(items: list[Answers], scorer: str, places: Any) -> Any:
    """(items,) of the answers at some places of each item."""
    part = [
        Answers([item.texts[k] for k in row], [item.logprobs[k] for k in row])
        for item, row in zip(items, places, strict=True)
    ]
    found = score(part, Options(scorers=(scorer,)))
    return np.array([one.confidences[scorer] for one in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=100)
    parser.add_argument("--scorers", nargs="+", default=["snne", "discrete_semantic_entropy"])
    args = parser.parse_args()
    with (EXAMPLES / "qa-gemma.jsonl").open() as reader:
        read = [json.loads(line) for line in reader]
    rows, right = [item["responses"] for item in read], 1.0 - np.array([i["label"] for i in read])
    items = [Answers([r["text"] for r in row], [r["token_logprobs"] for r in row]) for row in rows]
    rng = np.random.default_rng(0)
    lines, records = [], []
    for scorer in args.scorers:
        orders = [np.array([rng.permutation(N) for _ in items]) for _ in range(args.orders)]
        by_size = {
            m: np.stack([confidences(items, scorer, order[:, :m]) for order in orders])
            for m in range(MIN_N, N + 1, STEP)
        }
        halves = [
            np.stack([confidences(items, scorer, part) for part in (order[:, :5], order[:, 5:])])
            for order in orders
        ]
        for threshold in (0.3, 0.5, 0.7):
            fresh = np.mean([(a > threshold) == (b > threshold) for a, b in halves])
            for level in (0.8, 0.9, 0.95):
                rule = StopEarly(threshold=threshold, level=level, min_n=MIN_N, step=STEP)
                found = simulate(by_size, rule, right) | {"fresh": float(fresh)}
                lines.append(
                    [f"`{scorer}`", f"{threshold}", f"{level}"]
                    + [f"{found[name]:.1%}" for name in ("saved", "stopped", "agree", "fresh")]
                    + [f"{found[name]:.3f}" for name in ("auroc", "auroc_of_all")]
                )
                records.append({"scorer": scorer, "threshold": threshold, "level": level, **found})
    header = [
        "scorer",
        "threshold",
        "level",
        "saved",
        "stopped",
        "agree",
        "fresh",
        "AUROC",
        "of all",
    ]
    print(table(header, lines))
    write("stop_early", records)


def simulate(by_size: dict[int, Any], rule: StopEarly, right: Any) -> dict[str, float]:
    """Shares of answers saved, of items that stopped, of verdicts equal to that of all answers."""
    everything = by_size[N]
    used, last = np.full(everything.shape, N), everything.copy()
    for m in sorted(by_size)[-2::-1]:
        clear = np.vectorize(lambda c, m=m: decided(float(c), m, rule))(by_size[m])
        used[clear], last[clear] = m, by_size[m][clear]
    same = (last > rule.threshold) == (everything > rule.threshold)
    return {
        "saved": float(1 - used.mean() / N),
        "stopped": float((used < N).mean()),
        "agree": float(same.mean()),
        "auroc": float(np.mean([evaluate(-order, right)["auroc"] for order in last])),
        "auroc_of_all": evaluate(-everything[0], right)["auroc"],
    }


if __name__ == "__main__":
    main()
