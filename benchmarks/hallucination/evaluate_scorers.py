"""Resampled AUROC of many scorers: ours against scikit-learn's, on the same resamples.

    python -m benchmarks evaluate_scorers

The paired tests of evaluate-scorers need the AUROC of every scorer on every resample. First on the
real answers of `examples/qa-gemma.jsonl` with every scorer they can serve, then on simulated scores
with more items. Both sides get the same resamples; the largest difference of the values is printed.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks._harness.timing import flat, interleave, seconds
from methods.local import LocalContext
from methods.score_hallucination.evaluation.columns import read
from methods.score_hallucination.evaluation.ranking import resampled_auroc
from methods.score_hallucination.evaluation.spec import LabelledSpec
from methods.score_hallucination.schema.options import ScorerName
from tests.toys.reporting import table, write

EXAMPLES = Path(__file__).parents[2] / "examples"


def real() -> tuple[list[Any], Any]:
    """Uncertainties of the scorers on the real answers, and what is right."""
    spec = LabelledSpec.model_validate({"input": "qa-gemma.jsonl"})
    with tempfile.TemporaryDirectory() as folder:
        found = read(spec, get_args(ScorerName), LocalContext(Path(folder), spec, inputs=EXAMPLES))
    served = [name for name in found.values if np.isfinite(found.values[name]).all()]
    # Scores that differ by rounding only are ties for us and none for scikit-learn.
    return [np.round(found.uncertainty(name), 9) for name in served], found.right


def simulated(n: int, scorers: int = 10) -> tuple[list[Any], Any]:
    """Scores of graded quality without ties."""
    rng = np.random.default_rng(0)
    right = (rng.random(n) < 0.6).astype(float)
    return [rng.normal(size=n) - 0.2 * k * right for k in range(scorers)], right


def compare(scores: list[Any], right: Any, resamples: int, repeats: int) -> dict[str, Any]:
    """Times for one AUROC of one resample, and the largest difference."""
    n = len(right)
    chosen = np.random.default_rng(1).integers(n, size=(resamples, n))
    drawn = np.stack([np.bincount(row, minlength=n) for row in chosen], axis=1).astype(float)
    wrong = 1 - right

    def ours() -> Any:
        return np.array([resampled_auroc(score, right, drawn) for score in scores])

    def theirs() -> Any:
        return np.array(
            [[roc_auc_score(wrong[row], score[row]) for row in chosen] for score in scores]
        )

    units = resamples * len(scores)
    times = interleave({"ours": (ours, units), "scikit-learn": (theirs, units)}, repeats)
    return {
        "items": n,
        "scorers": len(scores),
        "resamples": resamples,
        **{name: flat(time) for name, time in times.items()},
        "ratio_cpu": times["scikit-learn"].cpu / times["ours"].cpu,
        "largest_difference": float(np.abs(ours() - theirs()).max()),
    }


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rows = [compare(*real(), args.resamples, args.repeats)]
    for n in (1000, 10_000):
        rows.append(compare(*simulated(n), max(20, args.resamples * 160 // n), args.repeats))
    header = ["items", "scorers", "ours", "scikit-learn", "ratio (CPU)", "largest difference"]
    cells = [
        [
            str(row["items"]),
            str(row["scorers"]),
            seconds(row["ours"]["cpu"]),
            seconds(row["scikit-learn"]["cpu"]),
            f"{row['ratio_cpu']:.0f}",
            f"{row['largest_difference']:.1e}",
        ]
        for row in rows
    ]
    print("CPU time of one AUROC of one resample (median):")
    print(table(header, cells))
    print(write("evaluate_scorers", rows, sklearn=version("scikit-learn"), numpy=np.__version__))


if __name__ == "__main__":
    main()
