"""Results as tables in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    scorer_summaries,
)

if TYPE_CHECKING:
    from datassay.result import Result

_PROMPT_WIDTH = 44
_ANSWER_WIDTH = 32


def print_score_summary(
    result: Result, *, top: int = 10, by: str | None = None, console: Console | None = None
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
        console.print(suspects_table(ranking))
    console.print(scorers_table(scorers))


def suspects_table(ranking: Ranking) -> Table:
    """The most suspicious items."""
    suspects = ranking.suspects
    table = Table(
        title=f"The {len(suspects)} most suspicious answers by {plain(ranking.scorer)}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("id", no_wrap=True, overflow="ellipsis", max_width=20)
    table.add_column("prompt", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("answer", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("meanings", justify="right", no_wrap=True)
    labelled = any(suspect.item.get("label") is not None for suspect in suspects)
    if labelled:
        table.add_column("label", no_wrap=True)
    for suspect in suspects:
        table.add_row(*_suspect_cells(suspect, labelled))
    return table


def scorers_table(scorers: list[ScorerSummary]) -> Table:
    """One line for each scorer; the metrics only when items were labelled."""
    table = Table(title="Scorers", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("scorer", no_wrap=True)
    for heading in ("valid", "mean", "median"):
        table.add_column(heading, justify="right", no_wrap=True)
    metrics = [key for key in METRICS if any(key in scorer.metrics for scorer in scorers)]
    for key in metrics:
        table.add_column(METRICS[key], justify="right", no_wrap=True)
    for scorer in scorers:
        table.add_row(
            Text(plain(scorer.name)),
            str(scorer.n_valid),
            number(scorer.mean),
            number(scorer.median),
            *(str(scorer.metrics.get(key, "–")) for key in metrics),
        )
    return table


def number(value: float | None) -> str:
    """A score for reading; a dash for None."""
    return "–" if value is None else f"{value:.3f}"


def plain(value: Any) -> str:
    """Text in one line without control characters, which could steer the terminal."""
    text = " ".join(str(value).split())
    return "".join(char if char.isprintable() else "�" for char in text)


def _suspect_cells(suspect: Suspect, labelled: bool) -> list[Text | str]:
    item = suspect.item
    cells: list[Text | str] = [
        Text(plain(item.get("id", "–"))),
        Text(_tail(plain(item.get("prompt") or "–"), _PROMPT_WIDTH)),
        Text(_head(plain(item.get("answer") or "–"), _ANSWER_WIDTH)),
        number(suspect.value),
        meanings(item),
    ]
    if labelled:
        cells.append(_LABELS.get(item.get("label"), Text("–")))
    return cells


_LABELS: dict[Any, Text] = {1: Text("wrong", style="red"), 0: Text("right", style="green")}


def _head(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _tail(text: str, width: int) -> str:
    # The question stands at the end of a prompt, behind instructions and examples.
    return text if len(text) <= width else "…" + text[1 - width :]
