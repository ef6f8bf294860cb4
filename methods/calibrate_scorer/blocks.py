"""What people see of a calibrate-scorer result."""

from __future__ import annotations

from methods.calibrate_scorer.spec import Result
from methods.results import Block, Column, FigureBlock, Headline, table
from methods.score_hallucination.blocks import work


def present(result: Result, figures: list[FigureBlock]) -> Result:
    """The result with its headline and blocks."""
    calibrator = result.calibrator
    blocks: list[Block] = [_errors(result)]
    if calibrator.abstention:
        blocks.append(_thresholds(result))
    if calibrator.selective:
        blocks.append(_selective(result))
    if result.slices:
        blocks.append(_slices(result))
    if calibrator.two_stage is not None:
        blocks.append(_two_stage(result))
    if result.ensemble is not None:
        blocks.append(_ensemble(result))
    blocks += [*figures, *work(None, result.judging)]
    scorers = " + ".join(calibrator.binding.weights)
    return result.shown(f"Calibration of {scorers}", _headline(result), blocks)


def _selective(result: Result) -> Block:
    columns = [
        Column(key="risk", label="Wrong among the answers", format="percent"),
        Column(key="threshold", label="Answer from", format="number"),
        Column(key="answered", label="Answered", format="percent", better="high"),
        Column(key="n_answered", label="Answered items", format="integer"),
        Column(key="n_wrong", label="Wrong ones", format="integer", better="low"),
    ]
    delta = result.calibrator.selective[0].delta
    return table(
        "Thresholds that keep the answers right",
        columns,
        result.calibrator.selective,
        help="Answer when the confidence is at least the threshold: with probability "
        f"{1 - delta:.0%} at most this share of the answers is wrong. A dash: there are too few "
        "labels to show it.",
    )


def _slices(result: Result) -> Block:
    columns = [
        Column(key="slice", label="Items with"),
        Column(key="n", label="Items", format="integer"),
        Column(key="mean", label="Mean probability", format="percent"),
        Column(key="right", label="Share right", format="percent"),
        Column(key="ece", label="ECE", format="number", better="low"),
        Column(key="brier", label="Brier score", format="number", better="low"),
    ]
    rows = [
        {
            "slice": f"{one.field} = {one.value}",
            **one.model_dump(include={"n", "mean", "right"}),
            "ece": one.errors.ece,
            "brier": one.errors.brier,
        }
        for one in result.slices
    ]
    return table(
        "Slices",
        columns,
        rows,
        help="Held-out probabilities of the items of each value of the metadata, with 95 % "
        "bootstrap intervals.",
    )


def _headline(result: Result) -> list[Headline]:
    calibrator = result.calibrator
    quality = calibrator.quality
    return [
        Headline(
            key="ece",
            label="Calibration error (ECE)",
            **quality.cross_validated.ece.model_dump(),
            better="low",
            help="Cross-validated expected calibration error of the probabilities, with its 95 % "
            "bootstrap interval; 0 is best. Resampling biases it upwards.",
        ),
        Headline(
            key="brier",
            label="Brier score",
            **quality.cross_validated.brier.model_dump(),
            better="low",
            help="Cross-validated mean squared error of the probabilities.",
        ),
        Headline(
            key="auroc",
            label="AUROC of the confidence",
            value=quality.auroc,
            better="high",
            help="How well the confidence separates right answers from hallucinated ones.",
        ),
        Headline(key="n", label="Labelled items", value=calibrator.n, format="integer"),
        Headline(
            key="hallucinated",
            label="Hallucinated items",
            value=calibrator.n_hallucinated,
            format="integer",
        ),
    ]


def _errors(result: Result) -> Block:
    quality = result.calibrator.quality
    rows = [
        {"probabilities": "uncalibrated confidence", **_pair(quality.uncalibrated)},
        {"probabilities": "calibrated, on the items it was fitted on", **_pair(quality.in_sample)},
        *(
            {"probabilities": f"{name}, cross-validated", **_pair(errors)}
            for name, errors in result.methods.items()
        ),
    ]
    columns = [
        Column(key="probabilities", label="Probabilities"),
        Column(key="ece", label="ECE", format="number", better="low"),
        Column(key="brier", label="Brier", format="number", better="low"),
    ]
    return table(
        "Calibration errors",
        columns,
        rows,
        help="With 95 % bootstrap intervals. The cross-validated rows are the honest ones.",
    )


def _pair(errors: object) -> dict[str, object]:
    return {name: getattr(errors, name) for name in ("ece", "brier")}


def _thresholds(result: Result) -> Block:
    columns = [
        Column(
            key="risk",
            label="Risk",
            format="percent",
            help="Probability that a wrong answer comes through, at most.",
        ),
        Column(key="threshold", label="Answer above", format="number"),
        Column(key="answered", label="Answered", format="percent", better="high"),
        Column(key="right_answered", label="Right ones answered", format="percent", better="high"),
        Column(key="accuracy", label="Right among them", format="percent", better="high"),
    ]
    return table(
        "Thresholds with a guaranteed risk",
        columns,
        result.calibrator.abstention,
        help="Answer when the confidence is above the threshold; a dash: too few wrong answers "
        "were given for this risk, so never answer.",
    )


def _two_stage(result: Result) -> Block:
    found = result.calibrator.two_stage
    assert found is not None
    columns = [
        Column(key="second", label="Stage two"),
        Column(key="lower", label="Ask from", format="number"),
        Column(key="upper", label="to", format="number"),
        Column(key="verdict", label="Hallucinated from", format="number"),
        Column(key="budget", label="Budget", format="percent"),
    ]
    return table(
        "Two-stage verification",
        columns,
        [found],
        help="The verifier is asked where 1 - confidence lies in the band.",
    )


def _ensemble(result: Result) -> Block:
    found = result.ensemble
    assert found is not None
    weights = result.calibrator.binding.weights
    rows = [
        {"scorer": name, "weight": weight, "auroc": found.single.get(name)}
        for name, weight in weights.items()
    ]
    rows += [
        {"scorer": "equal weights", "weight": None, "auroc": found.equal},
        {"scorer": "fitted weights", "weight": None, "auroc": found.fitted},
    ]
    columns = [
        Column(key="scorer", label="Scorer"),
        Column(key="weight", label="Weight", format="number"),
        Column(key="auroc", label="AUROC", format="number", better="high"),
    ]
    return table(
        "Ensemble",
        columns,
        rows,
        help=f"Weights from {found.n} labelled items, AUROC on the others.",
    )
