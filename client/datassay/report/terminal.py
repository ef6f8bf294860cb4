"""A result in a terminal, from its blocks alone: at most sixty lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text as Styled

from datassay.blocks import Column, Content, Figure, Images, Picked, Samples, Table, Text
from datassay.report.html import shorten
from datassay.report.numbers import bounds, cell, headline

if TYPE_CHECKING:
    from datassay.view import ResultView

MAX_LINES = 60
#: Samples that are shown.
MAX_SAMPLES = 8
_MAX_WARNING_LINES = 12
#: Lines of a table beside its rows: title, headings, rules.
_FRAME = 4
_FIRST_ROWS, _OTHER_ROWS = 14, 7
_WIDEST_TEXT = 36
#: Columns of the terminal between two columns of a table.
_PADDING = 3
_RIGHT_WRONG = {"right": "green", "wrong": "red"}


def print_result(
    result: ResultView,
    content: Content,
    console: Console | None = None,
    where: str | None = None,
) -> None:
    """Print the headline, warnings, the first rows of the tables and the first samples.

    Args:
        where: The last line: where the whole of it is.
    """
    console = console or Console()
    for line in lines(result, content, console, where):
        console.print(line, soft_wrap=True)


def lines(
    result: ResultView, content: Content, console: Console, where: str | None = None
) -> list[Styled]:
    """The lines of a result, 60 at most, for this console's width."""
    shown = result.shown
    texts = [block for block in shown.blocks if isinstance(block, Text)]
    top = [Styled(plain(shown.title), style="bold"), *_headline(result, console.width)]
    top += _wrapped([b.text for b in texts if b.kind == "warning"], "! ", "yellow", console)
    top += _wrapped([b.text for b in texts if b.kind == "text"], "", "", console)
    bottom = _footer(result, console, where)
    left = MAX_LINES - len(top) - len(bottom)
    middle: list[Styled] = []
    hidden = 0
    most = _FIRST_ROWS
    for index, block in enumerate(shown.blocks):
        if isinstance(block, Table):
            columns, rows, total = block.columns, block.rows, max(block.total, len(block.rows))
        elif isinstance(block, Samples):
            columns, rows, total = _sample_rows(block, content.samples.get(index), console.width)
        else:
            continue
        room = min(len(rows), most, left - _FRAME - 1)
        if room < min(1, len(rows)):
            hidden += 1
            continue
        drawn = _table(plain(block.title), columns, rows[:room], total, console)
        middle += drawn
        left -= len(drawn)
        most = _OTHER_ROWS
    if hidden:
        bottom.insert(0, Styled(f"{hidden} more tables are in the report.", style="dim"))
    return [*top, *middle, *bottom][:MAX_LINES]


def plain(value: Any) -> str:
    """Text in one line without control characters, which could steer the terminal."""
    text = " ".join(str(value).split())
    return "".join(char if char.isprintable() else "�" for char in text)


def _headline(result: ResultView, width: int) -> list[Styled]:
    figures = result.shown.headline
    names = [plain(figure.label) for figure in figures]
    space = min(max(map(len, names), default=0), width // 2)
    rows = []
    for name, figure in zip(names, figures, strict=True):
        value = plain(headline(figure))
        row = Styled(f"  {head(name, space):<{space}}  ")
        row.append(value, style="bold")
        if interval := bounds(figure):
            row.append(f" {interval}", style="dim")
        rows.append(row)
    return rows


def _wrapped(texts: Iterable[str], mark: str, style: str, console: Console) -> list[Styled]:
    rows: list[Styled] = []
    texts = list(texts)
    for number, text in enumerate(texts):
        found = Styled(mark + plain(text), style=style).wrap(console, console.width)
        if len(rows) + len(found) > _MAX_WARNING_LINES:
            rows.append(Styled(f"{mark}and {len(texts) - number} more", style=style))
            break
        rows += found
    return rows


def _footer(result: ResultView, console: Console, where: str | None) -> list[Styled]:
    drawn = [plain(b.title) for b in result.shown.blocks if isinstance(b, Figure | Images)]
    rows = []
    if drawn:
        text = f"{len(drawn)} figures: {', '.join(drawn)}"
        rows += [Styled(head(text, console.width), style="dim")]
    if result.shown.unknown:
        rows.append(Styled(f"{result.shown.unknown} parts need a newer client.", style="yellow"))
    where = where or f"Report: datassay open {result.job.id}"
    rows.append(Styled(where, style="dim"))
    return rows


def _sample_rows(
    block: Samples, picked: Picked | None, width: int
) -> tuple[list[Column], list[dict[str, Any]], int]:
    samples = picked.samples if picked is not None else []
    columns = [Column(key=" id", label="Item"), Column(key=" prompt", label="Prompt")]
    if any(sample.get("answer") is not None for sample in samples):
        columns.append(Column(key=" answer", label="Answer"))
    columns += block.columns[:2]
    if any(sample.get("verdict") for sample in samples):
        columns.append(Column(key=" verdict", label="Label"))
    figures = sum(max(len(column.label), 7) + _PADDING for column in block.columns[:2])
    room = max(16, (width - figures - 14 - 7 - 4 * _PADDING) // 2)
    rows = [
        {
            " id": head(plain(sample.get("id", "")), 14),
            " prompt": shorten(plain(sample.get("prompt") or "–"), room),
            " answer": head(plain(sample.get("answer") or "–"), room),
            " verdict": sample.get("verdict"),
            **(sample.get("values") or {}),
        }
        for sample in samples[:MAX_SAMPLES]
    ]
    return columns, rows, block.total


def _table(
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    total: int,
    console: Console,
) -> list[Styled]:
    """The lines of a table; columns that do not fit are left out from the right, and counted."""
    cells = [[_cell(row.get(column.key), column) for column in columns] for row in rows]
    labels = [plain(c.label) for c in columns]
    widths = [
        max([len(label), *(len(line[k]) for line in cells)]) for k, label in enumerate(labels)
    ]
    fitting, used = 0, 1
    for width in widths:
        if used + width + _PADDING > console.width and fitting:
            break
        used += width + _PADDING
        fitting += 1
    heading = title
    if total > len(rows):
        heading += f" ({len(rows)} of {total:,})"
    if fitting < len(columns):
        heading += f" (+{len(columns) - fitting} columns)"
    grid = Grid(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column, label in zip(columns[:fitting], labels, strict=False):
        right = column.format != "text"
        grid.add_column(label, justify="right" if right else "left", no_wrap=True)
    for line in cells:
        grid.add_row(*(Styled(text, style=_RIGHT_WRONG.get(text, "")) for text in line[:fitting]))
    with console.capture() as capture:
        console.print(grid)
    drawn = Styled.from_ansi(capture.get()).split("\n")
    return [line for line in drawn if line.plain.strip()]


def _cell(value: Any, column: Column) -> str:
    return head(plain(cell(value, column.format)), _WIDEST_TEXT)


def head(text: str, width: int) -> str:
    """The beginning of a text, with an ellipsis where it was cut."""
    return text if len(text) <= width else text[: width - 1] + "…"
