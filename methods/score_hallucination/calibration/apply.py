"""A calibrator at work on the items of a job."""

from __future__ import annotations

import numpy as np

from methods.score_hallucination.calibration.calibrator import Calibrator
from methods.score_hallucination.result import CalibrationSummary, Drift
from methods.score_hallucination.schema.probability_maps import (
    Calibrated,
)
from methods.score_hallucination.scoring.pipeline import ItemScores
from methods.typing import BoolArray


class Calibration:
    """Calibrates item by item, and knows in the end how the items differ from its own."""

    def __init__(self, calibrator: Calibrator) -> None:
        self.calibrator = calibrator
        self._confidences: list[float] = []
        self._probabilities: list[float] = []

    def add(self, scored: ItemScores) -> Calibrated:
        """What the calibrator says of the next item."""
        found = self.calibrator.calibrated(scored.confidences, scored.n)
        confidence = self.calibrator.confidence(scored.confidences)
        self._confidences.append(np.nan if confidence is None else confidence)
        if found.probability is not None:
            self._probabilities.append(found.probability)
        return found

    def summary(self) -> CalibrationSummary:
        """Over all items so far."""
        known = self._probabilities
        return CalibrationSummary(
            id=self.calibrator.id,
            n=len(known),
            mean=sum(known) / len(known) if known else None,
            drift=self.drift(slice(None)),
        )

    def drift(self, rows: BoolArray | slice) -> Drift | None:
        """How far some of the items so far are from the calibrator's; None without confidences."""
        confidences = np.array(self._confidences)[rows]
        known: list[float] = confidences[np.isfinite(confidences)].tolist()
        return self.calibrator.drift(known) if known else None
