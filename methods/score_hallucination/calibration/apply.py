"""A calibrator at work on the items of a job."""

from __future__ import annotations

import numpy as np

from methods.errors import JobError
from methods.score_hallucination.calibration.calibrator import Calibrator, Selective
from methods.score_hallucination.result import CalibrationSummary, DecisionSummary, Drift
from methods.score_hallucination.schema.probability_maps import Calibrated, Decision
from methods.score_hallucination.scoring.pipeline import ItemScores
from methods.typing import BoolArray


class Calibration:
    """Calibrates item by item, and knows in the end how the items differ from its own."""

    def __init__(self, calibrator: Calibrator, decision: Decision | None = None) -> None:
        self.calibrator, self._decision = calibrator, decision
        self._fitted = None if decision is None else calibrator.guarantee(decision)
        if decision is not None and self._fitted is None:
            risks = ", ".join(f"{one.risk:g}" for one in calibrator.abstention) or "none"
            raise JobError(
                "input_invalid",
                f"decision/risk: the calibrator was not fitted for {decision.risk:g}; its risks "
                f"are {risks}. Calibrate with this one among `risks`.",
            )
        self._verdicts = {"answer": 0, "withhold": 0}
        self._confidences: list[float] = []
        self._probabilities: list[float] = []

    def add(self, scored: ItemScores) -> Calibrated:
        """What the calibrator says of the next item."""
        found = self.calibrator.calibrated(scored.confidences, scored.n)
        confidence = self.calibrator.confidence(scored.confidences)
        self._confidences.append(np.nan if confidence is None else confidence)
        if self._fitted is not None and found.probability is not None and confidence is not None:
            found.verdict = "answer" if self._fitted.answers(confidence) else "withhold"
            self._verdicts[found.verdict] += 1
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
            decision=self._decided(),
            drift=self.drift(slice(None)),
        )

    def _decided(self) -> DecisionSummary | None:
        if self._decision is None or self._fitted is None:
            return None
        return DecisionSummary(
            **self._decision.model_dump(),
            delta=self._fitted.delta if isinstance(self._fitted, Selective) else None,
            threshold=self._fitted.threshold,
            n_answered=self._verdicts["answer"],
            n_withheld=self._verdicts["withhold"],
        )

    def drift(self, rows: BoolArray | slice) -> Drift | None:
        """How far some of the items so far are from the calibrator's; None without confidences."""
        confidences = np.array(self._confidences)[rows]
        known: list[float] = confidences[np.isfinite(confidences)].tolist()
        return self.calibrator.drift(known) if known else None
