"""A result as one HTML file that needs neither network nor server.

Everything that comes from data is escaped, and a Content-Security-Policy names the scripts of the
page by hash, so nothing else runs and nothing is fetched, whatever a result contains.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from datassay._version import __version__
from datassay.models import JobRecord
from datassay.report.scores import (
    METRICS,
    Ranking,
    ScorerSummary,
    Suspect,
    meanings,
    question,
    scorer_summaries,
)

if TYPE_CHECKING:
    from datassay.view import Figure, ResultView

#: Characters of a prompt that are shown; the whole of it is the tooltip.
_PROMPT_LENGTH = 160

_VEGA = ("vega.min.js", "vega-lite.min.js", "vega-embed.min.js")


def write_report(
    path: str | os.PathLike[str], result: ResultView, ranking: Ranking, title: str | None = None
) -> Path:
    """Write the report of a result and return its path."""
    target = Path(path)
    target.write_text(render(result, ranking, title), encoding="utf-8")
    return target


def render(result: ResultView, ranking: Ranking, title: str | None = None) -> str:
    """The report as text."""
    heading = title or f"{_words(result.job.type)} report"
    figures = result.figures
    # A report without figures is a few kilobytes instead of nearly a megabyte.
    scripts = [*(_vega(name) for name in _VEGA if figures), _asset("script.js")]
    sections = [
        _summary_section(result.summary),
        _scorers_section(scorer_summaries(result.summary)),
        _figures_section(figures),
        _suspects_section(ranking),
        _provenance_section(result.provenance),
    ]
    return Template(_asset("template.html")).substitute(
        title=escape(heading),
        policy=escape(_policy(scripts)),
        style=_asset("style.css"),
        facts=_facts(result.job),
        sections="\n".join(filter(None, sections)),
        data=_json_block([figure.vega_lite for figure in figures]),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
        version=escape(__version__),
    )


def _facts(job: JobRecord) -> str:
    facts: dict[str, Any] = {
        "Job": job.id,
        "Type": f"{job.type} {job.type_version}".strip(),
        "State": job.raw_state,
        "Created": f"{job.created_at:%Y-%m-%d %H:%M:%S %Z}",
        "Run time": _run_time(job),
        "Attempt": f"{job.attempt} of {job.max_attempts}",
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
    seconds = (job.finished_at - job.started_at).total_seconds()
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{seconds:.1f} s" if seconds < 60 else f"{hours}:{minutes:02}:{rest:02}"


def _summary_section(summary: Mapping[str, Any]) -> str:
    plain = {
        key: value
        for key, value in summary.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }
    if not plain:
        return ""
    tiles = "".join(
        f"<div><dd>{escape(_number(value))}</dd><dt>{escape(_words(key))}</dt></div>"
        for key, value in plain.items()
    )
    return _section("Summary", f'<dl class="tiles">{tiles}</dl>')


def _scorers_section(scorers: list[ScorerSummary]) -> str:
    if not scorers:
        return ""
    metrics = [key for key in METRICS if any(key in scorer.metrics for scorer in scorers)]
    rows = []
    for scorer in scorers:
        estimates = [scorer.metrics.get(key) for key in metrics]
        rows.append(
            _text_cell(scorer.name, "name")
            + _number_cell(scorer.n_valid)
            + _number_cell(scorer.mean)
            + _number_cell(scorer.median)
            + "".join(
                _cell(str(e or "–"), "number", sort=e.value if e else None) for e in estimates
            )
        )
    headings = ["Scorer", "Valid", "Mean", "Median", *(METRICS[key] for key in metrics)]
    note = (
        "Intervals are bootstrap intervals over the labelled items. "
        "PRR is 0 for a random order and 1 for a perfect one."
        if metrics
        else ""
    )
    return _section("Scorers", _table(headings, rows), note)


def _suspects_section(ranking: Ranking) -> str:
    suspects = ranking.suspects
    if not suspects:
        return ""
    labelled = any(suspect.item.get("label") is not None for suspect in suspects)
    headings = ["Item", "Prompt", "Answer", "Score", "Confidence", "Meanings"]
    rows = [_suspect_row(suspect, labelled) for suspect in suspects]
    note = f"Ranked by {ranking.scorer}. Meanings: clusters among the sampled answers."
    if labelled:
        headings.append("Label")
    return _section("Most suspicious answers", _table(headings, rows), note)


def _suspect_row(suspect: Suspect, labelled: bool) -> str:
    item = suspect.item
    row = (
        _text_cell(item.get("id"), "name")
        + _prompt_cell(item.get("prompt"))
        + _text_cell(item.get("answer"), "text")
        + _number_cell(suspect.value)
        + _number_cell(suspect.confidence)
        + _cell(meanings(item), "number", sort=len(item.get("clusters") or []))
    )
    if labelled:
        label = item.get("label")
        word = {None: "–", 0: "right", 1: "wrong"}.get(label, str(label))
        row += _cell(
            f'<span class="label {escape(word)}">{escape(word)}</span>', "", sort=label, markup=True
        )
    return row


def _figures_section(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    blocks = "".join(
        f'<figure><h3>{escape(figure.title)}</h3><div class="plot" data-figure="{index}"></div>'
        + (f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else "")
        + "</figure>"
        for index, figure in enumerate(figures)
    )
    return _section("Figures", f'<div class="figures">{blocks}</div>')


def _provenance_section(provenance: Mapping[str, Any]) -> str:
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


def _table(headings: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(
        f'<th scope="col"><button type="button">{escape(text)}</button></th>' for text in headings
    )
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(content: str, kind: str, *, sort: float | None = None, markup: bool = False) -> str:
    key = "" if sort is None else f' data-sort="{float(sort)!r}"'
    return f'<td class="{kind}"{key}>{content if markup else escape(content)}</td>'


def _text_cell(value: Any, kind: str) -> str:
    return _cell("–" if value is None else str(value), kind)


def _prompt_cell(prompt: str | None) -> str:
    if prompt is None:
        return _text_cell(None, "text")
    short, full = question(prompt, _PROMPT_LENGTH), escape(prompt)
    return f'<td class="text" title="{full}">{escape(short)}</td>'


def _number_cell(value: float | None) -> str:
    return _cell("–" if value is None else _number(value), "number", sort=value)


def _number(value: float | str) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _words(name: str) -> str:
    text = name.removeprefix("n_").replace("-", " ").replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def _json_block(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Iterable[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    # Vega compiles the expressions of a specification, hence unsafe-eval.
    return (
        f"default-src 'none'; script-src {hashes} 'unsafe-eval'; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def _asset(name: str) -> str:
    return files("datassay.report").joinpath(name).read_text(encoding="utf-8")


@cache
def _vega(name: str) -> str:
    # Browsers' developer tools would try to fetch the map over the network.
    return _asset(f"vendor/{name}").partition("\n//# sourceMappingURL=")[0]
