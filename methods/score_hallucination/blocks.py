"""What people see of a score-hallucination result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import to_json

from methods.context import RunContext
from methods.results import (
    MAX_INLINE_SAMPLES,
    Block,
    Column,
    FigureBlock,
    Headline,
    Sample,
    SamplesBlock,
    TableBlock,
    counted,
    table,
)
from methods.score_hallucination.result import (
    Evaluation,
    ItemResult,
    JudgingResult,
    Result,
    SamplingResult,
    ScorerSummary,
    ScoringSummary,
)
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.schema.verification import Verification
from methods.score_hallucination.spec import Spec

#: Scorers that have a column of their own in the list of samples.
_SCORERS_SHOWN = 4
_PROMISES = {
    "answered_if_wrong": "Items to answer: of the wrong answers at most {risk:.1%} is given, on "
    "average over calibration sets.",
    "wrong_if_answered": "Items to answer: of the answers given at most {risk:.1%} is wrong, with "
    "the confidence that the calibrator states.",
}
_METRICS = {"auroc": "AUROC", "auarc": "AUARC", "prr": "PRR"}


def present(
    result: Result, samples: SamplesBlock, sizes: Mapping[int, int], figures: list[FigureBlock]
) -> Result:
    """The result with its headline and blocks.

    Args:
        sizes: number of items by their number of meanings.
    """
    summary = result.summary
    best = best_scorer(summary.scorers)
    blocks: list[Block] = [_scorers(summary.scorers)]
    blocks += _slices(summary)
    blocks += _verification(result)
    blocks += [*figures, samples]
    blocks += work(result.sampling, result.judging)
    return result.shown(
        f"Hallucination scores of {counted(summary.n_items, 'item')}",
        _headline(result, best, sizes),
        blocks,
    )


def warnings(summary: ScoringSummary) -> list[str]:
    """What weakens the numbers of a summary."""
    texts = [
        f"{name}: {summary.n_items - found.n_valid} of {summary.n_items} items have no score; each "
        "says why"
        for name, found in summary.scorers.items()
        if found.n_valid < summary.n_items
    ]
    calibration = summary.calibration
    if calibration is None:
        return texts
    if calibration.n < summary.n_items:
        left = summary.n_items - calibration.n
        texts.append(f"calibration: {left} of {summary.n_items} items have no probability")
    if calibration.drift is not None and calibration.drift.shifted:
        texts.append(
            "drift: these scores differ from those that the calibrator was fitted on (KS "
            f"{calibration.drift.ks:.3f}, p {calibration.drift.ks_p_value:.2g}); its probabilities "
            "may not hold"
        )
    return texts


def of_sampling(summary: ScoringSummary, sampled: SamplingResult | None) -> list[str]:
    """What was left out of the file, and what the model's server does otherwise."""
    found = []
    if summary.n_bad_rows:
        found.append(
            f"bad_rows: {counted(summary.n_bad_rows, 'row')} of the file left out; bad_rows.jsonl "
            "says why"
        )
    return found + [f"server: {one}" for one in (sampled.learned if sampled else ())]


def best_scorer(scorers: Mapping[str, ScorerSummary]) -> str:
    """The scorer with the best AUROC; without labels the first one."""

    def auroc(name: str) -> float:
        found = scorers[name].evaluation
        return -1.0 if found is None or found.auroc.value is None else found.auroc.value

    # max() keeps the first of equals.
    return max(scorers, key=auroc)


def _headline(result: Result, best: str, sizes: Mapping[int, int]) -> list[Headline]:
    summary = result.summary
    found = summary.scorers[best]
    headline = []
    if found.evaluation is not None:
        headline += _quality(best, found.evaluation)
    disagreeing = 1 - sizes.get(1, 0) / max(1, sum(sizes.values()))
    headline.append(
        Headline(
            key="disagreeing",
            label="Items with several meanings",
            value=disagreeing,
            format="percent",
            better="low",
            help="Share of items whose sampled answers do not all mean the same.",
        )
    )
    if summary.calibration is not None:
        headline.append(
            Headline(
                key="expected_right",
                label="Expected right answers",
                value=summary.calibration.mean,
                format="percent",
                better="high",
                help="Mean calibrated probability of being right.",
            )
        )
    if summary.calibration is not None and (decided := summary.calibration.decision):
        headline.append(
            Headline(
                key="answered",
                label="Verdict: answer",
                value=decided.n_answered,
                format="integer",
                better="high",
                help=_PROMISES[decided.guarantee].format(risk=decided.risk),
            )
        )
    if summary.verification is not None:
        headline.append(
            Headline(
                key="hallucinated",
                label="Hallucinated, by two stages",
                value=summary.verification.n_hallucinated,
                format="integer",
                better="low",
                help="Items whose two-stage verdict is `hallucinated`.",
            )
        )
    headline.append(Headline(key="items", label="Items", value=summary.n_items, format="integer"))
    return headline


def _quality(scorer: str, found: Evaluation) -> list[Headline]:
    return [
        Headline(
            key="auroc",
            label=f"AUROC of {scorer}",
            **found.auroc.model_dump(),
            better="high",
            help="How well the best scorer separates right answers from hallucinated ones: 0.5 is "
            "chance, 1 is perfect. With its 95 % bootstrap interval.",
        ),
        Headline(
            key="prr",
            label=f"PRR of {scorer}",
            **found.prr.model_dump(),
            better="high",
            help="What withholding the most suspicious answers gains: 0 is a random order, 1 a "
            "perfect one.",
        ),
    ]


def _scorers(scorers: Mapping[str, ScorerSummary]) -> TableBlock:
    rows = []
    for scorer, found in scorers.items():
        evaluated = found.evaluation
        rows.append(
            {
                "scorer": scorer,
                **found.model_dump(exclude={"evaluation"}),
                **{key: getattr(evaluated, key) if evaluated else None for key in _METRICS},
            }
        )
    labelled = any(row["auroc"] is not None for row in rows)
    columns = [
        Column(key="n_valid", label="Valid", format="integer", help="Items with a score."),
        Column(key="mean", label="Mean", format="number"),
        Column(key="median", label="Median", format="number"),
        Column(key="std", label="SD", format="number", help="Standard deviation."),
        Column(
            key="direction",
            label="A high score means",
            help="`uncertainty`: a high score is suspicious; `confidence`: a low one is.",
        ),
    ]
    quality: list[Column] = []
    help_text = "Each scorer over all items, in its own range."
    if labelled:
        quality = [
            Column(key=key, label=label, format="number", better="high")
            for key, label in _METRICS.items()
        ]
        help_text += (
            " AUROC, AUARC and PRR with 95 % bootstrap intervals over the labelled items; PRR is 0 "
            "for a random order and 1 for a perfect one."
        )
    name = Column(key="scorer", label="Scorer")
    return table("Scorers", [name, *quality, *columns], rows, help=help_text)


def _slices(summary: ScoringSummary) -> list[Block]:
    """Every scorer over every slice."""
    rows = []
    for part in summary.slices:
        for scorer, found in part.scorers.items():
            evaluated = found.evaluation
            rows.append(
                {
                    "slice": f"{part.field} = {part.value}",
                    "scorer": scorer,
                    "n_items": part.n_items,
                    "n_hallucinated": part.n_hallucinated,
                    "mean": found.mean,
                    **{key: getattr(evaluated, key) if evaluated else None for key in _METRICS},
                    "ks": part.drift.ks if part.drift else None,
                }
            )
    if not rows:
        return []
    columns = [
        Column(key="slice", label="Items with"),
        Column(key="scorer", label="Scorer"),
    ]
    if any(row["auroc"] is not None for row in rows):
        columns += [
            Column(key=key, label=label, format="number", better="high")
            for key, label in _METRICS.items()
        ]
    columns += [
        Column(key="n_items", label="Items", format="integer"),
        Column(key="n_hallucinated", label="Hallucinated", format="integer"),
        Column(key="mean", label="Mean", format="number"),
    ]
    if any(row["ks"] is not None for row in rows):
        columns.append(
            Column(
                key="ks",
                label="Drift (KS)",
                format="number",
                better="low",
                help="Largest gap to the distribution that the calibrator was fitted on.",
            )
        )
    return [
        table(
            "Slices",
            columns,
            rows,
            help="The scorers over the items of each value of the metadata, with 95 % bootstrap "
            "intervals where they are labelled.",
        )
    ]


def _verification(result: Result) -> list[Block]:
    found = result.summary.verification
    if found is None:
        return []
    columns = [
        Column(key="scorer", label="Scorer of stage one"),
        Column(key="n", label="Items", format="integer"),
        Column(key="n_asked", label="Verifier asked", format="integer"),
        Column(key="realised", label="Share asked", format="percent"),
        Column(key="n_hallucinated", label="Hallucinated", format="integer"),
        Column(key="requests", label="Requests", format="integer"),
    ]
    return [
        table(
            "Two-stage verification",
            columns,
            [found],
            help="A second model is asked only where the first stage is in doubt.",
        )
    ]


def work(sampling: SamplingResult | None, judging: JudgingResult | None) -> list[Block]:
    """What was asked of models, as a table; nothing where no model was asked."""
    rows = []
    if sampling is not None:
        rows.append({"what": "answers drawn", "who": sampling.model, **_cost(sampling)})
    if judging is not None:
        rows.append({"what": "judgements", "who": judging.judges, **_cost(judging)})
    if not rows:
        return []
    columns = [
        Column(key="what", label="Asked for"),
        Column(key="who", label="Model"),
        Column(key="requests", label="Requests", format="integer"),
        Column(key="prompt_tokens", label="Prompt tokens", format="integer"),
        Column(key="completion_tokens", label="Completion tokens", format="integer"),
    ]
    return [table("Model use", columns, rows)]


def _cost(found: SamplingResult | JudgingResult) -> dict[str, int]:
    return {
        name: getattr(found, name) for name in ("requests", "prompt_tokens", "completion_tokens")
    }


class SampleWriter:
    """Writes items with their answers, as they are scored, for the list in reports."""

    def __init__(self, spec: Spec, writer: BinaryIO) -> None:
        self._scorers = list(spec.scorers[:_SCORERS_SHOWN])
        self._writer = writer
        self._count = 0
        self._directions: dict[str, str] = {}
        self._calibrated = False

    def add(self, item: Item, result: ItemResult) -> None:
        """Write one item."""
        values: dict[str, float | int | str | None] = {"meanings": len(result.clusters)}
        for name in self._scorers:
            values[name] = result.scores[name].value
            self._directions[name] = result.scores[name].direction
        if result.calibrated is not None:
            values["probability"] = result.calibrated.probability
            self._calibrated = True
        # A `Sample`; models of every answer would take longer than some scorers.
        sample = {
            "id": result.id,
            "prompt": item.question or None,
            "answer": None if item.answer is None else item.answer.text,
            "verdict": None if result.label is None else ("wrong" if result.label else "right"),
            "values": values,
            "marks": _marks(result),
            "groups": _groups(item, result),
        }
        self._writer.write(to_json(sample, inf_nan_mode="null") + b"\n")
        self._count += 1

    def block(
        self, path: Path, ctx: RunContext, by: str, verdicts: list[Verification] | None
    ) -> SamplesBlock:
        """The list of what was written to `path`, the most suspicious items by a scorer first.

        Args:
            verdicts: what two stages say of each item, where a verifier was asked for.
        """
        if verdicts is not None:
            path = _with_verdicts(path, verdicts)
        inline = path.stat().st_size <= MAX_INLINE_SAMPLES
        by = by if by in self._scorers else self._scorers[0]
        columns = [
            Column(
                key=name,
                label=name,
                format="number",
                better="high" if self._directions.get(name) == "confidence" else "low",
            )
            for name in self._scorers
        ]
        columns.append(
            Column(
                key="meanings",
                label="Meanings",
                format="integer",
                better="low",
                help="Clusters of answers that mean the same.",
            )
        )
        if self._calibrated:
            columns.append(
                Column(
                    key="probability",
                    label="P(right)",
                    format="percent",
                    better="high",
                    help="Calibrated probability that the answer is right.",
                )
            )
        if verdicts is not None:
            columns.append(Column(key="two_stages", label="Two stages"))
        samples, artifact = None, None
        if inline:
            samples = [Sample.model_validate_json(line) for line in path.open("rb")]
        else:
            artifact = ctx.save_artifact("samples.jsonl", path, "application/x-ndjson")
        return SamplesBlock(
            title="Items and their answers",
            help=f"The most suspicious items by {by} come first. Answers that mean the same stand "
            "together.",
            columns=columns,
            value_label="what the answer adds to SNNE; the highest is the most isolated answer",
            sort=by if self._directions.get(by) == "confidence" else f"-{by}",
            total=self._count,
            samples=samples,
            artifact=artifact,
        )


def _with_verdicts(path: Path, verdicts: list[Verification]) -> Path:
    """The samples with the verdict of two stages among their figures."""
    target = path.with_name("verified-samples.jsonl")
    with path.open("rb") as reader, target.open("wb") as writer:
        for line, verdict in zip(reader, verdicts, strict=True):
            sample = json.loads(line)
            sample["values"]["two_stages"] = verdict.verdict
            writer.write(to_json(sample) + b"\n")
    return target


def _marks(result: ItemResult) -> list[dict[str, Any]]:
    """`SampleMark`s: the parts of the answer, the less supported the stronger."""
    return [
        {"start": unit.start, "end": unit.end, "value": 1 - unit.support}
        for unit in result.units or []
        if unit.start is not None and unit.support is not None
    ]


def _groups(item: Item, result: ItemResult) -> list[dict[str, Any]]:
    """`SampleGroup`s: the largest meaning first, in each the most typical answer first."""
    texts = [response.text for response in item.responses or []]
    added = None if result.explanation is None else result.explanation.contributions
    groups = []
    for cluster in sorted(result.clusters, key=lambda one: -one.size):
        members = sorted(cluster.members, key=lambda k: k != cluster.representative)
        groups.append(
            {
                "label": f"One meaning, {cluster.size} of {result.n} answers",
                "texts": [
                    {"text": texts[k], "value": None if added is None else added[k]}
                    for k in members
                ],
            }
        )
    return groups
