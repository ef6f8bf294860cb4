"""Whether a calibrator's two guarantees hold: simulated calibration sets, 2,000 of each kind.

    python -m benchmarks calibrator_guarantees [--repeats 2000]

Confidences of new items are drawn from a known law, and an item is right with a known probability
of its confidence; so the risk of a threshold is known exactly, up to 200,000 new items. `mean risk`
is P(answered | wrong), mean over calibration sets: the conformal threshold promises at most the
risk. `kept` is the share of calibration sets in which P(wrong | answered) is at most the risk, or
nothing is answered: Learn then Test promises 1 - delta. `answered` is what both give, mean over
calibration sets. `clustered` has five items a prompt that are right or wrong together: `one each`
is the calibrator's way, one item of each prompt; `all` shows what taking them for independent does.
"""

from __future__ import annotations

import argparse

import numpy as np

from methods.calibrate_scorer import core
from methods.typing import FloatArray
from tests.toys.reporting import table, write

DELTA = 0.1
NEW = 200_000
SHARED = 5


def drawn(law: str, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """(n,) confidences and labels, 1 = right."""
    if law == "uniform":
        confidence = rng.random(n)
        probability = confidence
    elif law == "ten samples":
        # Of ten answers the share that agrees; much at 1, as with real answers.
        confidence = np.minimum(1, rng.binomial(10, rng.beta(1.2, 0.6, size=n)) / 10)
        probability = 0.2 + 0.75 * confidence**2
    else:
        confidence = rng.beta(4, 2, size=n)
        probability = 1 / (1 + np.exp(-8 * (confidence - 0.45)))
    return confidence, (rng.random(n) < probability).astype(float)


def clustered(n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """The same confidence and label for all items of a prompt."""
    confidence, right = drawn("sharp", n // SHARED, rng)
    return np.repeat(confidence, SHARED), np.repeat(right, SHARED)


def measured(law: str, n: int, risk: float, repeats: int, way: str) -> dict[str, float]:
    """The two guarantees over calibration sets of n items."""
    rng = np.random.default_rng(0)
    new, truth = drawn("sharp" if law == "clustered" else law, NEW, rng)
    wrong = truth == 0
    names = ("mean_risk", "kept", "conformal", "selective")
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        if law == "clustered":
            confidence, right = clustered(n, rng)
            if way == "one each":
                confidence, right = confidence[::SHARED], right[::SHARED]
        else:
            confidence, right = drawn(law, n, rng)
        if not (right == 0).any() or not (right == 1).any():
            continue
        conformal = core.abstain(confidence, right, risk)
        above = new > (np.inf if conformal.threshold is None else conformal.threshold)
        selective = core.select(confidence, right, risk, DELTA)
        given = new >= (np.inf if selective.threshold is None else selective.threshold)
        found["mean_risk"].append(above[wrong].mean())
        found["conformal"].append(above.mean())
        found["kept"].append(not given.any() or wrong[given].mean() <= risk)
        found["selective"].append(given.mean())
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2000)
    args = parser.parse_args()
    cases = [
        (law, n, risk, "all")
        for law in ("uniform", "ten samples", "sharp")
        for n in (100, 300, 1000)
        for risk in (0.05, 0.1, 0.2)
    ]
    cases += [("clustered", 1000, 0.1, way) for way in ("one each", "all")]
    lines, records = [], []
    for law, n, risk, way in cases:
        found = measured(law, n, risk, args.repeats, way)
        name = f"{law}, {way}" if law == "clustered" else law
        lines.append(
            [
                name,
                str(n),
                f"{risk:.0%}",
                f"{found['mean_risk']:.3f}",
                f"{found['conformal']:.0%}",
                f"{found['kept']:.3f}",
                f"{found['selective']:.0%}",
            ]
        )
        records.append({"law": name, "n": n, "risk": risk, **found})
    header = ["confidences", "labels", "risk", "mean risk", "answered", "kept", "answered"]
    print(table(header, lines))
    write("calibrator_guarantees", records, repeats=args.repeats, delta=DELTA)


if __name__ == "__main__":
    main()
