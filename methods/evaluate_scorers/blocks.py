"""What people see of an evaluate-scorers result."""

from __future__ import annotations

from methods.evaluate_scorers.figures import LOWER_IS_BETTER, metric, metric_title
from methods.evaluate_scorers.spec import Result
from methods.results import Block, Column, FigureBlock, Headline, counted, table
from methods.score_hallucination.blocks import work


def present(result: Result, figures: list[FigureBlock]) -> Result:
    """The result with its headline and blocks."""
    summary = result.summary
    blocks: list[Block] = [_ranking(result)]
    if result.slices:
        blocks.append(_slices(result))
    if result.comparisons:
        blocks.append(_comparisons(result))
    if result.left_out:
        blocks.append(_left_out(result))
    blocks += [*figures, *work(None, result.judging)]
    return result.shown(
        f"Scorers on {counted(summary.labels.n_labelled, 'labelled item')}",
        _headline(result),
        blocks,
    )


def _headline(result: Result) -> list[Headline]:
    summary, best = result.summary, result.ranking[0] if result.ranking else None
    headline = [
        Headline(key="best", label="Best scorer", value=summary.best, help="First of the ranking.")
    ]
    if best is not None and (value := metric(best, summary.rank_by)) is not None:
        headline.append(
            Headline(
                key=summary.rank_by,
                label=metric_title(summary.rank_by),
                **value.model_dump(),
                better="low" if summary.rank_by in LOWER_IS_BETTER else "high",
                help="Of the best scorer, with its 95 % bootstrap interval.",
            )
        )
    alike = sum(report.like_best is True for report in result.ranking[1:])
    tested = any(report.like_best is not None for report in result.ranking)
    if tested and summary.rank_by == "auroc":
        headline.append(
            Headline(
                key="like_best",
                label="Others not told from the best",
                value=alike,
                format="integer",
                help="Scorers whose AUROC does not differ significantly from the best one's on "
                "these items; it may still differ.",
            )
        )
    counts = summary.labels
    headline += [
        Headline(key="right", label="Right items", value=counts.n_right, format="integer"),
        Headline(
            key="hallucinated",
            label="Hallucinated items",
            value=counts.n_hallucinated,
            format="integer",
        ),
    ]
    return headline


def _slices(result: Result) -> Block:
    rows = [
        {
            "slice": f"{part.field} = {part.value}",
            "n_hallucinated": part.n_hallucinated,
            "scorer": one.scorer,
            "n": one.n,
            "auroc": one.auroc,
            "prr": one.prr,
        }
        for part in result.slices
        for one in part.scorers
    ]
    columns = [
        Column(key="slice", label="Items with"),
        Column(key="scorer", label="Scorer"),
        Column(key="auroc", label="AUROC", format="number", better="high"),
        Column(key="prr", label="PRR", format="number", better="high"),
        Column(key="n", label="Items", format="integer"),
        Column(key="n_hallucinated", label="Hallucinated", format="integer"),
    ]
    return table(
        "Slices",
        columns,
        rows,
        help="Each scorer over the items of each value of the metadata, with 95 % bootstrap "
        "intervals.",
    )


def _ranking(result: Result) -> Block:
    rows = [
        {
            **{name: getattr(report, name) for name in type(report).model_fields},
            "ece": None if report.confidence is None else report.confidence.ece,
            "brier": None if report.confidence is None else report.confidence.brier,
        }
        for report in result.ranking
    ]
    columns = [
        Column(key="rank", label="Rank", format="integer"),
        Column(key="scorer", label="Scorer"),
        Column(key="auroc", label="AUROC", format="number", better="high"),
        Column(key="auarc", label="AUARC", format="number", better="high"),
        Column(key="prr", label="PRR", format="number", better="high"),
        Column(key="risk_coverage_area", label="AURC", format="number", better="low"),
        Column(key="ece", label="ECE", format="number", better="low"),
        Column(key="brier", label="Brier", format="number", better="low"),
        Column(
            key="like_best",
            label="Like the first",
            help="`yes`: its AUROC cannot be told from that of the first row on these items.",
        ),
        Column(key="n", label="Items", format="integer"),
        Column(key="n_undefined", label="Undefined", format="integer"),
    ]
    return table(
        "Ranking",
        columns,
        rows,
        help="With 95 % bootstrap intervals. ECE and Brier are of the uncalibrated confidence.",
    )


def _comparisons(result: Result) -> Block:
    columns = [
        Column(key="first", label="Scorer"),
        Column(key="second", label="against"),
        Column(key="difference", label="Difference of AUROC", format="number"),
        Column(key="low", label="Low", format="number"),
        Column(key="high", label="High", format="number"),
        Column(key="p_adjusted", label="Adjusted p", format="number"),
        Column(key="n", label="Items", format="integer"),
    ]
    return table(
        "Paired comparisons",
        columns,
        result.comparisons,
        help="On the items for which both are defined: 95 % interval of the paired bootstrap, and "
        "p-values corrected for all pairs (Romano and Wolf).",
    )


def _left_out(result: Result) -> Block:
    rows = [
        {"scorer": name, "reason": reason, "items": count}
        for name, reasons in result.left_out.items()
        for reason, count in reasons.items()
    ]
    columns = [
        Column(key="scorer", label="Scorer"),
        Column(key="reason", label="Why no item can serve it"),
        Column(key="items", label="Items", format="integer"),
    ]
    return table("Scorers left out", columns, rows)
