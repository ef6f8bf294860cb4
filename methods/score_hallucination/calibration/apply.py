"""A calibrator at work on the items of a job."""

from __future__ import annotations

from methods.score_hallucination.calibration.calibrator import Calibrator
from methods.score_hallucination.result import CalibrationSummary
from methods.score_hallucination.schema.probability_maps import (
    Calibrated,
)
from methods.score_hallucination.scoring.pipeline import ItemScores


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
        if confidence is not None:
            self._confidences.append(confidence)
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
            drift=self.calibrator.drift(self._confidences) if self._confidences else None,
        )
