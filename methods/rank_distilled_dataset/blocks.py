"""What people see of a rank-distilled-dataset result."""

from __future__ import annotations

from methods.rank_distilled_dataset.result import Leaderboard, Result, Row, RunEstimate
from methods.results import (
    Block,
    Column,
    FigureBlock,
    Headline,
    ImagesBlock,
    TextBlock,
    counted,
    table,
)

NAMES = {"lrs": "LRS", "ars": "ARS", "accuracy": "Accuracy"}
_GRID = "grid/"


def present(result: Result, figures: list[FigureBlock]) -> Result:
    """The result with its headline and blocks."""
    blocks: list[Block] = []
    if result.overall is not None:
        blocks.append(
            TextBlock(text=f"By mean score over the models: {', '.join(result.overall)}.")
        )
    for board in result.leaderboards:
        blocks.append(_leaderboard(board))
        if board.win is not None and len(board.rows) > 1:
            blocks.append(_wins(board))
    blocks += figures
    blocks += [
        ImagesBlock(
            title=f"Images of {name.removeprefix(_GRID)}",
            caption="Class by class; 200 images at most.",
            artifact=artifact,
        )
        for name, artifact in result.artifacts.items()
        if name.startswith(_GRID)
    ]
    blocks.append(_work(result))
    count = counted(len(result.leaderboards[0].rows), "distilled set")
    return result.shown(
        f"{count} of {result.dataset.name}, ranked by {NAMES[result.ranked_by]}",
        _headline(result),
        blocks,
    )


def ranking_score(row: Row, metric: str) -> RunEstimate:
    """The estimate that ranks a row."""
    found: RunEstimate | None = getattr(row, metric)
    assert found is not None, "the metric was asked for"
    return found


def _headline(result: Result) -> list[Headline]:
    board = result.leaderboards[0]
    best, metric = board.rows[0], result.ranked_by
    found = ranking_score(best, metric)
    where = f" ({board.model})" if len(result.leaderboards) > 1 else ""
    headline = [
        Headline(key="best", label=f"Best set{where}", value=best.name),
        Headline(
            key=metric,
            label=f"Its {NAMES[metric]}",
            value=found.value,
            low=found.low,
            high=found.high,
            better="high",
            help="Mean over the runs, with Student's 95 % interval.",
        ),
    ]
    if len(board.rows) > 1:
        second = board.rows[1]
        if second.behind is not None:
            headline.append(
                Headline(
                    key="lead",
                    label=f"Lead over {second.name}",
                    value=second.behind.value,
                    low=second.behind.low,
                    high=second.behind.high,
                    better="high",
                    help="Run by run; an interval that covers 0 cannot tell the two apart.",
                )
            )
        headline.append(
            Headline(
                key="p_first",
                label="Probability of rank 1",
                value=best.p_first,
                format="percent",
                better="high",
                help="Against all others together, given the runs.",
            )
        )
    if board.full is not None:
        headline.append(
            Headline(
                key="full",
                label="Accuracy of the full data" + (", as given" if board.full_given else ""),
                value=board.full.value,
                low=board.full.low,
                high=board.full.high,
                format="number",
            )
        )
    return headline


def _leaderboard(board: Leaderboard) -> Block:
    estimates = [
        ("lrs", "LRS", "high", "Label-robust score, 0 to 1."),
        ("ars", "ARS", "high", "Augmentation-robust score, 0 to 1."),
        ("hlr", "HLR", "low", "Full data minus hard-label accuracy."),
        ("ior", "IOR", "high", "Own minus random accuracy."),
        ("accuracy", "Accuracy", "high", "In the set's own setting, as a fraction."),
        ("accuracy_hard", "With hard labels", "high", "Accuracy with hard labels."),
        ("accuracy_random", "Random subset", None, "Accuracy of random real images."),
        ("behind", "Behind the first", "low", "Score of rank 1 minus this one, run by run."),
    ]
    columns = [
        Column(key="rank", label="Rank", format="integer"),
        Column(key="name", label="Set"),
        *(
            Column(key=key, label=label, format="number", better=better, help=text)
            for key, label, better, text in estimates
            if any(getattr(row, key) is not None for row in board.rows)
        ),
        Column(key="p_first", label="P(rank 1)", format="percent", better="high"),
        Column(key="lr", label="Learning rate", format="number"),
        Column(key="labels", label="Labels"),
        Column(key="image_bytes", label="Images", format="bytes", better="low"),
        Column(key="label_bytes", label="Soft labels", format="bytes", better="low"),
    ]
    return table(
        f"Leaderboard ({board.model})",
        columns,
        board.rows,
        help="Means over the runs with Student's 95 % intervals.",
    )


def _wins(board: Leaderboard) -> Block:
    assert board.win is not None
    names = [row.name for row in board.rows]
    rows = [
        {"name": name, **{str(k): p for k, p in enumerate(line)}}
        for name, line in zip(names, board.win, strict=True)
    ]
    columns = [
        Column(key="name", label="Set"),
        *(
            Column(key=str(k), label=f"beats {name}", format="percent")
            for k, name in enumerate(names)
        ),
    ]
    return table(
        f"Who beats whom ({board.model})",
        columns,
        rows,
        help="Probability that the score of the row is above that of the column, by paired "
        "bootstrap over the runs.",
    )


def _work(result: Result) -> Block:
    columns = [
        Column(key="trained", label="Trained", format="integer"),
        Column(key="restored", label="Taken from other jobs", format="integer"),
        Column(key="shared", label="Shared within the job", format="integer"),
        Column(key="seconds", label="Processor time", format="seconds"),
        Column(key="seconds_saved", label="Saved", format="seconds"),
    ]
    return table("Trainings", columns, [result.work])
