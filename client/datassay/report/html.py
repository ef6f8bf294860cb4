"""A result as one HTML file that needs neither network nor server, from its blocks alone.

Everything that comes from data is escaped, and a Content-Security-Policy names the scripts of the
page by hash, so nothing else runs and nothing is fetched, whatever a result contains. Vega
interprets the expressions of its specifications; nothing is compiled from text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from datassay._version import __version__
from datassay.blocks import (
    Block,
    Column,
    Content,
    Figure,
    Headline,
    Images,
    Picked,
    Samples,
    Table,
    Text,
)
from datassay.models import JobRecord, MetricSeries
from datassay.report.numbers import bounds, cell, headline, one

if TYPE_CHECKING:
    from datassay.view import ResultView

#: Characters of a prompt in the line of its item; the whole of it is inside.
_PROMPT_LENGTH = 110
#: Rows from which on a table has a search field.
_SEARCHED_ROWS = 12
_MAX_CURVES = 24
#: Characters from which on a headline figure is set smaller.
_LONG_VALUE = 14

_VEGA = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")
#: What a prompt ends with to make a model answer; it tells items not apart.
_CUE = re.compile(r"\s+\w{1,12}:$")
_BETTER = {"high": "high is good", "low": "low is good"}


def write_report(
    path: str | os.PathLike[str], result: ResultView, content: Content, title: str | None = None
) -> Path:
    """Write the report of a result and return its path."""
    target = Path(path)
    target.write_text(render(result, content, title), encoding="utf-8", errors="replace")
    return target


def render(result: ResultView, content: Content, title: str | None = None) -> str:
    """The report as text."""
    shown = result.shown
    figures = [block for block in shown.blocks if isinstance(block, Figure)]
    curves = [curve(series) for series in content.metrics[:_MAX_CURVES]]
    # A report without figures is a few kilobytes instead of nearly a megabyte.
    scripts = [*(_vega(name) for name in _VEGA if figures or curves), _asset("script.js")]
    sections = [
        *_warnings(shown.blocks),
        *_sections(shown.blocks, content),
        _curves(curves, len(figures), len(content.metrics) - len(curves)),
        _provenance(result.provenance),
    ]
    if shown.unknown:
        text = f"{shown.unknown} parts of this result need a newer client than {__version__}."
        sections.insert(0, _warning_list([text]))
    return Template(_asset("template.html")).substitute(
        title=escape(title or shown.title),
        policy=escape(_policy(scripts)),
        style=_asset("style.css"),
        facts=_facts(result.job),
        headline=_tiles(shown.headline),
        sections="\n".join(filter(None, sections)),
        data=_json_block([figure.vega_lite for figure in [*figures, *curves]]),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
        version=escape(__version__),
    )


def fragment(result: ResultView) -> str:
    """The headline, warnings and tables as HTML for a notebook, which runs no scripts."""
    shown = result.shown
    parts = [f"<h3>{escape(shown.title)}</h3>", _tiles(shown.headline), *_warnings(shown.blocks)]
    for block in shown.blocks:
        if isinstance(block, Table):
            parts.append(_table_section(block, searchable=False))
        elif isinstance(block, Text) and block.kind == "text":
            parts.append(f"<p>{escape(block.text)}</p>")
    drawn = sum(isinstance(block, Figure | Images | Samples) for block in shown.blocks)
    if drawn:
        parts.append(
            f'<p class="note">{drawn} figures and lists are in the report: '
            "<code>result.to_html(path)</code>.</p>"
        )
    return f'<div class="datassay"><style>{_asset("notebook.css")}</style>{"".join(parts)}</div>'


def job_fragment(job: JobRecord) -> str:
    """A job as HTML for a notebook: its result if it is there, else how far it is."""
    from datassay.view import ResultView

    if job.result_data is not None:
        return fragment(ResultView(job.result_data, job))
    state = job.raw_state.lower()
    if job.progress is not None and not job.is_terminal:
        now = job.progress
        state += f", {now.phase} {now.current:,} of {now.total:,} {now.unit}"
    if job.error is not None:
        state += f": {job.error.message}"
    return f"<p><b>{escape(job.type)}</b> {escape(job.id)}<br>{escape(state)}</p>"


def _facts(job: JobRecord) -> str:
    reused = job.cache.hit_of if job.cache is not None else None
    facts: dict[str, Any] = {
        "Job": job.id,
        "Type": f"{job.type} {job.type_version}".strip(),
        "State": job.raw_state.lower(),
        "Created": f"{job.created_at:%Y-%m-%d %H:%M:%S %Z}",
        "Run time": _run_time(job),
        "Attempt": f"{job.attempt} of {job.max_attempts}" if job.attempt else None,
        "Result of": reused,
        **{f"Label {key}": value for key, value in job.labels.items()},
    }
    return "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
        if value is not None
    )


def _run_time(job: JobRecord) -> str | None:
    if job.started_at is None or job.finished_at is None:
        return None
    return one((job.finished_at - job.started_at).total_seconds(), "seconds")


def _tiles(figures: Iterable[Headline]) -> str:
    tiles = []
    for figure in figures:
        interval, text = bounds(figure), headline(figure)
        size = "value" if len(text) <= _LONG_VALUE else "value long"
        under = f'<dd class="interval">{escape(interval)}</dd>' if interval else ""
        words = " ".join(filter(None, (figure.help, _direction(figure.better))))
        note = f'<dd class="help">{escape(words)}</dd>' if words else ""
        tiles.append(
            f"<div><dt>{escape(figure.label)}</dt>"
            f'<dd class="{size}">{escape(text)}</dd>{under}{note}</div>'
        )
    return f'<dl class="tiles">{"".join(tiles)}</dl>' if tiles else ""


def _direction(better: str | None) -> str:
    return f"{_BETTER[better].capitalize()}." if better in _BETTER else ""


def _warnings(blocks: Iterable[Block]) -> list[str]:
    texts = [b.text for b in blocks if isinstance(b, Text) and b.kind == "warning"]
    return [_warning_list(texts)] if texts else []


def _warning_list(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<section class="warnings"><h2>Before you trust this</h2><ul>{items}</ul></section>'


def _sections(blocks: list[Block], content: Content) -> Iterable[str]:
    """The blocks in order; figures that follow each other share a grid."""
    grid: list[str] = []
    number = 0
    for index, block in enumerate(blocks):
        if isinstance(block, Figure):
            grid.append(_figure(block, number))
            number += 1
            continue
        if grid:
            yield f'<section><div class="figures">{"".join(grid)}</div></section>'
            grid = []
        if isinstance(block, Text) and block.kind == "text":
            yield f'<section><p class="text">{escape(block.text)}</p></section>'
        elif isinstance(block, Table):
            yield _table_section(block)
        elif isinstance(block, Images):
            yield _images(block, content.images.get(index))
        elif isinstance(block, Samples):
            yield _samples(block, content.samples.get(index) or Picked([], 0))
    if grid:
        yield f'<section><div class="figures">{"".join(grid)}</div></section>'


def curve(series: MetricSeries) -> Figure:
    """A figure over time as a line; gaps where it was not finite."""
    rows = [
        {"step": step, "value": value}
        for step, value in zip(series.steps, series.values, strict=True)
    ]
    number = {"type": "quantitative"}
    encoding = {
        "x": {"field": "step", "title": "step", "axis": {"tickMinStep": 1}, **number},
        "y": {"field": "value", "title": series.name, "scale": {"zero": False}, **number},
    }
    return Figure(
        title=series.name,
        caption=f"{len(rows):,} points of what the job reported while it ran; long curves are "
        "thinned.",
        vega_lite={
            "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
            "data": {"values": rows},
            "mark": {"type": "line", "tooltip": True, "point": len(rows) < 30},
            "encoding": encoding,
            "width": "container",
            "height": 220,
        },
    )


def _curves(curves: Sequence[Figure], first: int, left: int) -> str:
    if not curves:
        return ""
    drawn = "".join(_figure(figure, first + k) for k, figure in enumerate(curves))
    note = f'<p class="note">{left} more curves are not drawn.</p>' if left > 0 else ""
    return f'<section><h2>While it ran</h2><div class="figures">{drawn}</div>{note}</section>'


def _figure(figure: Figure, number: int) -> str:
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    spoken = escape(f"{figure.title}. {figure.caption or ''}".strip())
    wide = " wide" if figure.span == 2 else ""
    square = ' data-square=""' if figure.square else ""
    return (
        f'<figure class="card{wide}"><h2>{escape(figure.title)}</h2>'
        f'<div class="plot" data-spoken="{spoken}" data-figure="{number}"{square}></div>'
        f"{caption}</figure>"
    )


def _images(block: Images, picture: bytes | None) -> str:
    caption = f"<figcaption>{escape(block.caption)}</figcaption>" if block.caption else ""
    kind = block.artifact.media_type
    if not picture or kind not in ("image/png", "image/jpeg"):
        body = f'<p class="note">The picture is the artifact {escape(block.artifact.name)}.</p>'
    else:
        data = base64.b64encode(picture).decode()
        alt = escape(block.caption or block.title)
        body = f'<img alt="{alt}" src="data:{kind};base64,{data}">'
    return (
        f'<section><figure class="card picture"><h2>{escape(block.title)}</h2>{body}{caption}'
        "</figure></section>"
    )


def _table_section(block: Table, *, searchable: bool = True) -> str:
    rows = "".join(
        "<tr>" + "".join(_cell(row.get(column.key), column) for column in block.columns) + "</tr>"
        for row in block.rows
    )
    search = _search("rows") if searchable and len(block.rows) >= _SEARCHED_ROWS else ""
    headings = "".join(_heading(column, searchable, block.sort) for column in block.columns)
    grid = (
        f'<table class="sortable"><thead><tr>{headings}</tr></thead><tbody>{rows}</tbody></table>'
    )
    body = search + _scrolled("scroll", block.title, grid)
    notes = [block.help] if block.help else []
    total = max(block.total, len(block.rows))
    if total > len(block.rows):
        where = f"the artifact {block.artifact.name}" if block.artifact else "the result"
        notes.append(f"The first {len(block.rows):,} of {total:,} rows; all are in {where}.")
    return _section(block.title, body, " ".join(notes))


def _heading(column: Column, sortable: bool, sort: str | None) -> str:
    label = f"{column.label} ({column.unit})" if column.unit else column.label
    words = " ".join(filter(None, (column.help, _direction(column.better))))
    tip = f' title="{escape(words)}"' if words else ""
    kind = "" if column.format == "text" else ' class="number"'
    inner = f'<button type="button"{tip}>{escape(label)}</button>' if sortable else escape(label)
    order = {column.key: "ascending", f"-{column.key}": "descending"}.get(sort or "")
    sorted_by = f' aria-sort="{order}"' if order else ""
    return f'<th scope="col"{kind}{sorted_by}>{inner}</th>'


def _cell(value: Any, column: Column) -> str:
    number = value.get("value") if isinstance(value, Mapping) else value
    key = ""
    if isinstance(number, int | float):
        # Larger ones are all the same to a table.
        key = f' data-sort="{float(max(-1e300, min(1e300, number)))!r}"'
    kind = "number" if column.format != "text" or key else "words"
    return f'<td class="{kind}"{key}>{escape(cell(value, column.format))}</td>'


def _samples(block: Samples, picked: Picked) -> str:
    if not picked.samples:
        return ""
    notes = [block.help] if block.help else []
    shown = len(picked.samples)
    if shown < block.total:
        notes.append(f"The first {shown:,} of {block.total:,} items are shown.")
        if picked.seen < block.total:
            notes.append(f"They were chosen among the first {picked.seen:,}.")
        if block.artifact is not None:
            notes.append(f"All are in the artifact {block.artifact.name}.")
    items = "".join(_sample(sample, block) for sample in picked.samples)
    return _section(
        block.title, _search("items") + _scrolled("samples", block.title, items), " ".join(notes)
    )


def _sample(sample: Mapping[str, Any], block: Samples) -> str:
    prompt, answer = sample.get("prompt"), sample.get("answer")
    values = sample.get("values") or {}
    figures = "".join(
        f"<span><span>{escape(column.label)}</span> "
        f"<b>{escape(cell(values.get(column.key), column.format))}</b></span>"
        for column in block.columns
    )
    verdict = sample.get("verdict")
    badge = f'<span class="badge {escape(verdict)}">{escape(verdict)}</span>' if verdict else ""
    line = shorten(prompt or answer or "", _PROMPT_LENGTH)
    inside = [_passage("Prompt", prompt), _passage("Answer", answer, sample.get("marks") or ())]
    inside += [_group(group, block.value_label) for group in sample.get("groups") or []]
    return (
        f'<details class="sample"><summary><span class="id">{escape(str(sample.get("id", "")))}'
        f'</span><span class="prompt">{escape(line)}</span>{badge}'
        f'<span class="values">{figures}</span></summary>{"".join(inside)}</details>'
    )


def _passage(name: str, text: str | None, marks: Iterable[Mapping[str, Any]] = ()) -> str:
    if text is None:
        return ""
    return f'<h3>{name}</h3><p class="passage">{_marked(text, marks)}</p>'


def _marked(text: str, marks: Iterable[Mapping[str, Any]]) -> str:
    """A text whose parts have a background, the stronger the higher their value."""
    shown, at = "", 0
    for mark in marks:
        start, end, value = int(mark["start"]), int(mark["end"]), float(mark["value"])
        if at <= start < end <= len(text):
            shown += escape(text[at:start])
            shown += (
                f'<mark style="--weight:{round(60 * min(1.0, max(0.0, value)))}%" '
                f'title="uncertainty {value:.2f}">{escape(text[start:end])}</mark>'
            )
            at = end
    return shown + escape(text[at:])


def _group(group: Mapping[str, Any], value_label: str) -> str:
    rows = ""
    for entry in group.get("texts") or []:
        value = entry.get("value")
        note = ""
        if value is not None:
            figure = escape(one(value, "number"))
            note = f'<span class="added" title="{escape(value_label)}">{figure}</span>'
        rows += f"<li>{note}<span>{escape(str(entry.get('text', '')))}</span></li>"
    return f"<h3>{escape(str(group.get('label', '')))}</h3><ul>{rows}</ul>"


def _provenance(provenance: Mapping[str, Any]) -> str:
    if not provenance:
        return ""
    text = json.dumps(provenance, indent=2, ensure_ascii=False)
    return _section(
        "Provenance",
        f"<details><summary>Versions, models, seed</summary><pre>{escape(text)}</pre></details>",
    )


def _section(heading: str, body: str, note: str = "") -> str:
    after = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(heading)}</h2>{body}{after}</section>"


def _scrolled(kind: str, name: str, body: str) -> str:
    return (
        f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(name)}">{body}</div>'
    )


def _search(what: str) -> str:
    return (
        f'<label class="search"><span>Search {what}</span><input type="search" '
        'autocomplete="off"><output></output></label>'
    )


def shorten(text: str, width: int) -> str:
    """The end of a text, where prompts differ, cut between words; without a closing `Answer:`."""
    line = _CUE.sub("", " ".join(text.split()))
    if len(line) <= width:
        return line
    tail = line[-(width - 2) :]
    space = tail.find(" ")
    return "… " + (tail[space + 1 :] if 0 <= space < width // 2 else tail)


def _json_block(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(_finite(value), ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    """The same with null for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _policy(scripts: Iterable[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def _asset(name: str) -> str:
    return files("datassay.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _vega(name: str) -> str:
    # Browsers' developer tools would try to fetch the map over the network.
    return _asset(f"vendor/{name}").partition("\n//# sourceMappingURL=")[0]
