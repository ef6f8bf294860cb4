"""Two-stage verification of a job: who is in doubt, what a verifier says, the verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.inference.completion import Prompt, Usage
from methods.inference.llm import language_model
from methods.results import Interval
from methods.score_hallucination.answers.adapters import answers_of
from methods.score_hallucination.answers.answer_store import Drawn, draw, sampling_of, spent
from methods.score_hallucination.answers.item_reader import chunks
from methods.score_hallucination.calibration.calibrator import Calibrator, TwoStage
from methods.score_hallucination.evaluation import ranking
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.schema.verification import (
    Verdicts,
    Verification,
    VerificationSummary,
    Verifier,
)
from methods.score_hallucination.scorers import two_stage
from methods.score_hallucination.scoring.batch import Options
from methods.score_hallucination.scoring.pipeline import ItemScores, score
from methods.typing import BoolArray, FloatArray

PAPER_SCORER = "mpd_self"
_SECOND = "mpd_cross"


class FirstStage:
    """Stage one of every item of a job, in order.

    Attributes:
        scorer: what has to be scored for it; None: what the calibrator asks for.

    Raises:
        JobError: `input_invalid` when the calibrator has no thresholds that fit.
    """

    def __init__(self, verifier: Verifier, calibrator: Calibrator | None) -> None:
        self.verifier = verifier
        self._calibrator = calibrator if verifier.calibrated else None
        if self._calibrator is not None:
            self.fitted = _fitted(self._calibrator)
        self.scorer = None if verifier.calibrated else verifier.scorer or PAPER_SCORER
        self._s1: list[float] = []
        self.reasons: dict[int, str] = {}

    @property
    def s1(self) -> FloatArray:
        """(N,) uncertainties in [0, 1], NaN where undefined: see `reasons`."""
        return np.array(self._s1)

    def add(self, scored: ItemScores) -> None:
        """Note stage one of the next item."""
        if self._calibrator is None:
            assert self.scorer is not None, "without a calibrator there is a scorer"
            confidence = scored.confidences.get(self.scorer)
            reason = scored.reasons.get(self.scorer, f"{self.scorer} has no confidence here")
        else:
            reason = self._calibrator.unlike(scored.n) or "its score has no confidence"
            fits = self._calibrator.unlike(scored.n) is None
            confidence = self._calibrator.confidence(scored.confidences) if fits else None
        if confidence is None:
            self.reasons[len(self._s1)] = reason
        self._s1.append(math.nan if confidence is None else 1 - confidence)

    def choose(self, rng: np.random.Generator) -> tuple[two_stage.Band, BoolArray]:
        """The band, and (N,) the items of which the verifier is to be asked."""
        s1, v = self.s1, self.verifier
        if v.budget is None:
            band = self._band()
            return band, two_stage.asked(s1, band)
        assert v.lower is not None, "the spec was checked"
        assert v.verdict is not None, "the spec was checked"
        inside = two_stage.within_budget(s1, v.lower, v.budget, rng)
        upper = float(s1[inside].max()) if inside.any() else -np.inf
        return two_stage.Band(v.lower, upper, v.verdict), inside

    def _band(self) -> two_stage.Band:
        v = self.verifier
        if self._calibrator is not None:
            upper = -np.inf if self.fitted.upper is None else self.fitted.upper
            return two_stage.Band(self.fitted.lower, upper, self.fitted.verdict)
        assert v.lower is not None, "the spec was checked"
        assert v.verdict is not None, "the spec was checked"
        assert v.upper is not None, "the spec was checked"
        return two_stage.Band(v.lower, v.upper, v.verdict)

    def summary(self, band: two_stage.Band) -> dict[str, Any]:
        """What the summary says of the thresholds."""
        calibrator = self._calibrator
        return {
            "scorer": self.scorer or " + ".join(calibrator.scorers if calibrator else ()),
            "lower": band.lower,
            "upper": band.upper if np.isfinite(band.upper) else None,
            "verdict": band.verdict,
            "budget": self.fitted.budget if calibrator else self.verifier.budget,
            "thresholds": "calibrator" if calibrator else "spec",
        }


def _fitted(calibrator: Calibrator) -> TwoStage:
    two_stage_fit = calibrator.two_stage
    if two_stage_fit is None:
        raise JobError("input_invalid", "The calibrator has no thresholds for a verifier.")
    if two_stage_fit.second not in (_SECOND, "given"):
        raise JobError(
            "input_invalid", f"The calibrator's stage two is {two_stage_fit.second}, not {_SECOND}."
        )
    return two_stage_fit


def verify(
    items: Iterable[Item], first: FirstStage, options: Options, quality: FloatArray, ctx: RunContext
) -> tuple[list[Verification], VerificationSummary]:
    """Ask the verifier about the items in doubt, and decide on all.

    Args:
        items: with responses. quality: (N,) 1 = right, 0 = hallucinated, NaN = unknown.

    Raises:
        JobError: as sampling does.
    """
    s1 = first.s1
    band, asked = first.choose(ctx.rng)
    usage = spent(ctx, "verifier_usage")
    drawn = _drawn(items, first.verifier, asked, usage, ctx)
    s2, undefined = _second(items, drawn, asked, options, ctx)
    decided = np.where(asked, np.isfinite(s2), np.isfinite(s1))
    flagged = two_stage.decide(s1, s2, band, asked)
    reasons = first.reasons | undefined
    verdicts = [
        Verification(
            verdict=("hallucinated" if flagged[k] else "right") if decided[k] else None,
            stage=2 if asked[k] else 1,
            s1=_defined(s1[k]),
            s2=_defined(s2[k]),
            reason=reasons.get(k),
        )
        for k in range(len(s1))
    ]
    n = int(np.isfinite(s1).sum())
    realised = float(asked.sum() / n) if n else None
    ratio = first.verifier.parameter_ratio
    return verdicts, VerificationSummary(
        **first.summary(band),
        **asdict(usage),
        n=n,
        n_asked=int(asked.sum()),
        realised=realised,
        n_hallucinated=int((flagged & decided).sum()),
        relative_cost=None if realised is None or ratio is None else realised * ratio,
        labelled=_against_labels(s1, s2, flagged, decided, quality, band, asked, ctx),
    )


def _drawn(
    items: Iterable[Item], verifier: Verifier, asked: BoolArray, usage: Usage, ctx: RunContext
) -> Drawn | None:
    if verifier.model is None:
        return None
    kept = Drawn("verifier", ctx, account="verifier_usage")
    wanting = [
        number
        for number, item in enumerate(items)
        if asked[number] and item.verifier_responses is None
    ]

    def prompts() -> Iterator[tuple[int, Prompt]]:
        missing = {number for number in wanting if number not in kept}
        for number, item in enumerate(items):
            if number in missing:
                assert item.asked is not None, "the spec was checked against the item"
                yield number, item.asked

    if wanting:
        model = language_model(ctx.models, verifier.model)
        progress = ("verifying", len(wanting))
        draw(model, prompts(), sampling_of(verifier), kept, usage, progress, ctx)
    return kept


def _second(
    items: Iterable[Item], drawn: Drawn | None, asked: BoolArray, options: Options, ctx: RunContext
) -> tuple[FloatArray, dict[int, str]]:
    """(N,) stage two of the items that were asked about, NaN for the others."""
    s2, reasons = np.full(len(asked), np.nan), {}
    options = replace(options, scorers=(_SECOND,))
    numbers, done = iter(np.flatnonzero(asked).tolist()), 0
    for chunk in chunks(_answered(items, drawn, asked)):
        for scored in score([answers_of(item) for item in chunk], options, ctx.check):
            number = next(numbers)
            if _SECOND in scored.confidences:
                s2[number] = 1 - scored.confidences[_SECOND]
            else:
                reasons[number] = scored.reasons[_SECOND]
        done += len(chunk)
        ctx.progress("comparing", done, int(asked.sum()))
    return s2, reasons


def _answered(items: Iterable[Item], drawn: Drawn | None, asked: BoolArray) -> Iterator[Item]:
    for number, item in enumerate(items):
        if not asked[number]:
            continue
        if drawn is not None and drawn.get(number):
            texts = [answer.text for answer in drawn[number]]
            item = item.model_copy(update={"verifier_responses": texts})
        yield item


def _against_labels(
    s1: FloatArray,
    s2: FloatArray,
    flagged: BoolArray,
    decided: BoolArray,
    quality: FloatArray,
    band: two_stage.Band,
    asked: BoolArray,
    ctx: RunContext,
) -> Verdicts | None:
    known = decided & np.isfinite(quality)
    if not known.any():
        return None
    right = quality[known]
    verdict = two_stage.verdict_quality(flagged[known], right == 0)
    seed = int(ctx.rng.integers(2**63))

    def auroc(uncertainty: FloatArray) -> Interval:
        rng = np.random.default_rng(seed)
        return ranking.bootstrap(uncertainty, right, rng)["auroc"]

    return Verdicts(
        n=int(known.sum()),
        youden=_defined(verdict.youden),
        f1=_defined(verdict.f1),
        accuracy=verdict.accuracy,
        auroc_one=auroc(s1[known]),
        auroc=auroc(two_stage.rank_score(s1[known], s2[known], band, asked[known])),
    )


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
