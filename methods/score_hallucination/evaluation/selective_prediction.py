"""When not to answer: a threshold with a guaranteed risk, and the risk at every coverage."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from methods.score_hallucination.evaluation.ranking import accuracy_rejection_curve
from methods.typing import FloatArray

Objective = Literal["f1", "accuracy", "balanced_accuracy"]

#: The grid of UQLM.
THRESHOLDS = np.arange(0.0, 1.0, 0.01)


def conformal_threshold(confidence_of_wrong: FloatArray, risk: float) -> float:
    """The threshold above which a wrong answer comes through with probability at most `risk`.

    Answer when confidence > threshold. For exchangeable items this holds in finite samples and for
    any distribution: the threshold is the ceil((k + 1)(1 - risk))-th smallest of the k confidences.

    Args:
        confidence_of_wrong: (k,) confidences of calibration answers that are wrong.
        risk: in (0, 1).

    Returns:
        A confidence; inf (never answer) when k is too small for the risk.

    Raises:
        ValueError: risk outside (0, 1), or a confidence is NaN.

    Source: split conformal prediction, Vovk et al. 2005, over the wrong answers.
    """
    if not 0 < risk < 1:
        raise ValueError(f"risk must be between 0 and 1, got {risk}")
    scores = np.sort(np.asarray(confidence_of_wrong, dtype=np.float64))
    if np.isnan(scores).any():
        raise ValueError("confidences must not be NaN")
    # 10 * (1 - 0.7) is a little above 3 in floating point.
    rank = max(1, math.ceil((len(scores) + 1) * (1 - risk) - 1e-9))
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


def risk_coverage_curve(
    uncertainty: FloatArray, quality: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Coverage k/N and mean risk 1 - quality of the k least uncertain items, over tied orders.

    Args:
        uncertainty: (N,). quality: (N,) in [0, 1], 1 = right.

    Returns:
        (N,) coverages and (N,) risks.
    """
    n = len(quality)
    return np.arange(1, n + 1) / n, 1.0 - accuracy_rejection_curve(uncertainty, quality)


def risk_coverage_area(uncertainty: FloatArray, quality: FloatArray) -> float:
    """Mean over coverage of the selective risk (AURC); in [0, 1], lower is better.

    Source: Geifman and El-Yaniv 2017. LM-Polygraph rescales the quality to [0, 1] beforehand.
    """
    return float(risk_coverage_curve(uncertainty, np.asarray(quality, np.float64))[1].mean())
