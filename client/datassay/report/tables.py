"""Results as tables in a terminal."""

from __future__ import annotations

from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from datassay.report.scores import (
    METRICS,
    Ranking,
    ScorerSummary,
    Suspect,
    meanings,
    question,
    scorer_summaries,
)

#: Columns that score, meanings, label and the space between all cells take.
_SUSPECT_NUMBERS = 36

#: From this width on the intervals stand beside the values, below it under them.
_ROOMY = 118


class ScoredResult(Protocol):
    """What is shown of a result: `datassay.Result` has it."""

    @property
    def summary(self) -> dict[str, Any]: ...

    def ranking(self, *, by: str | None = None, top: int = 10) -> Ranking: ...


def print_score_summary(
    result: ScoredResult, *, top: int = 10, by: str | None = None, console: Console | None = None
) -> None:
    """Print the most suspicious items and the scorers of a result with scores.

    Args:
        result: A result whose summary has `scorers`; for others nothing is printed.
        top: How many items.
        by: The scorer to rank by; default: the one that separates labelled items best.
        console: Where to; default: standard output.
    """
    console = console or Console()
    scorers = scorer_summaries(result.summary)
    if not scorers:
        return
    ranking = result.ranking(by=by, top=top)
    if ranking.suspects:
        console.print(suspects_table(ranking, console.width))
    console.print(scorers_table(scorers, console.width))


def suspects_table(ranking: Ranking, width: int) -> Table:
    """The most suspicious items, in `width` columns."""
    suspects = ranking.suspects
    table = Table(
        title=f"The {len(suspects)} most suspicious answers by {plain(ranking.scorer)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    labelled = any(suspect.item.get("label") is not None for suspect in suspects)
    for heading in ("item", "prompt", "answer"):
        table.add_column(heading, no_wrap=True)
    for heading in ("score", "meanings", *(["label"] if labelled else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    # Left to itself, the table would squeeze the numbers as much as the texts.
    id_width = min(16, max(len(plain(s.item.get("id", "–"))) for s in suspects))
    texts = max(24, width - id_width - _SUSPECT_NUMBERS)
    for suspect in suspects:
        table.add_row(*_suspect_cells(suspect, labelled, id_width, texts))
    return table


def scorers_table(scorers: list[ScorerSummary], width: int) -> Table:
    """One line for each scorer; the metrics only when items were labelled."""
    roomy = width >= _ROOMY
    table = Table(title="Scorers", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("scorer", overflow="fold")
    for heading in ("valid", "mean", "median") if roomy else ("valid",):
        table.add_column(heading, justify="right", no_wrap=True)
    metrics = [key for key in METRICS if any(key in scorer.metrics for scorer in scorers)]
    for key in metrics:
        table.add_column(METRICS[key], justify="right", no_wrap=True)
    for scorer in scorers:
        estimates = [str(scorer.metrics.get(key, "–")) for key in metrics]
        if roomy:
            middle = [str(scorer.n_valid), number(scorer.mean), number(scorer.median)]
        else:
            middle = [str(scorer.n_valid)]
            estimates = [estimate.replace(" [", "\n[") for estimate in estimates]
        table.add_row(Text(plain(scorer.name)), *middle, *estimates)
    return table


def number(value: float | None) -> str:
    """A score for reading; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def plain(value: Any) -> str:
    """Text in one line without control characters, which could steer the terminal."""
    text = " ".join(str(value).split())
    return "".join(char if char.isprintable() else "�" for char in text)


def _suspect_cells(suspect: Suspect, labelled: bool, id_width: int, texts: int) -> list[Text | str]:
    item = suspect.item
    cells: list[Text | str] = [
        Text(_head(plain(item.get("id", "–")), id_width)),
        Text(question(plain(item.get("prompt") or "–"), texts * 3 // 5)),
        Text(_head(plain(item.get("answer") or "–"), texts * 2 // 5)),
        number(suspect.value),
        meanings(item),
    ]
    if labelled:
        cells.append(_LABELS.get(item.get("label"), Text("–")))
    return cells


_LABELS: dict[Any, Text] = {1: Text("wrong", style="red"), 0: Text("right", style="green")}


def _head(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
