"""How the command shows jobs, files and progress in a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from datassay.models import File, JobRecord, JobState, JobType
from datassay.report.terminal import head, plain

#: Columns from which on a job fits one line.
_WIDE = 140
_STYLES = {
    JobState.SUCCEEDED: "green",
    JobState.FAILED: "red",
    JobState.CANCELLED: "yellow",
    JobState.EXPIRED: "yellow",
    JobState.RUNNING: "cyan",
}


@contextmanager
def progress_display() -> Iterator[Callable[[JobRecord], None]]:
    """A live progress bar on standard error; where that is no terminal, a line a phase.

    Yields:
        The function to call with the job whenever it has changed.
    """
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as bar:
            yield bar
    else:
        yield _Lines(console)


@contextmanager
def transfer_display() -> Iterator[Callable[[str], Callable[[int, int | None], None]]]:
    """Live bars of uploads and downloads on standard error; where that is no terminal, a line each.

    Yields:
        A function that takes what is done and gives the function to call with the bytes so far
        and all bytes (None if unknown).
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:

        def begin(text: str) -> Callable[[int, int | None], None]:
            if not console.is_terminal:
                console.print(Text(plain(text)), soft_wrap=True)
            task = progress.add_task(plain(text), total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield begin


def print_job(job: JobRecord) -> None:
    """Everything about a job but its spec and result."""
    facts: dict[str, Any] = {
        "id": job.id,
        "type": f"{job.type} {job.type_version}".strip(),
        "state": job.raw_state,
        "attempt": f"{job.attempt} of {job.max_attempts}",
        "created": _moment(job.created_at),
        "started": _moment(job.started_at),
        "finished": _moment(job.finished_at),
        "expires": _moment(job.expires_at),
        "retry of": job.retry_of,
        "result of": job.cache and job.cache.hit_of,
        "waits for": job.cache and job.cache.waits_for,
        "labels": ", ".join(f"{key}={value}" for key, value in job.labels.items()),
        "progress": _status(job) if _is_under_way(job) else None,
        "error": f"{job.error.code}: {job.error.message}" if job.error else None,
    }
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value:
            grid.add_row(Text(name, style="dim"), Text(plain(value)))
    Console().print(grid)


def print_jobs(jobs: Iterable[JobRecord]) -> None:
    """Two lines a job in a narrow terminal, one in a wide one or a pipe."""
    rows = []
    for job in jobs:
        labels = ", ".join(f"{key}={value}" for key, value in job.labels.items())
        what = _headline(job) if job.succeeded else "" if job.is_terminal else _status(job)
        if job.error is not None:
            what = job.error.message
        rows.append((job.id, job.raw_state, _moment(job.created_at), job.type, what, labels))
    console = Console()
    headings = ("id", "state", "created", "type", "result or progress", "labels")
    if not console.is_terminal or console.width >= _WIDE:
        print_rows(headings, rows)
        return
    for job_id, state, created, kind, what, labels in rows:
        style = _STYLES.get(JobState.of(state), "")
        first = Text(f"{plain(job_id)}  {created[:16]}  ").append(plain(state), style=style)
        second = "  ".join(filter(None, (kind, what, labels)))
        console.print(first, soft_wrap=True)
        console.print(Text(f"  {head(plain(second), console.width - 2)}"), soft_wrap=True)


def _headline(job: JobRecord) -> str:
    """The first figures of a result, such as `AUROC of snne 0.754`."""
    from datassay.blocks import shown
    from datassay.report.numbers import headline

    figures = shown({"headline": job.headline}, job.type).headline[:2]
    return ", ".join(f"{figure.label} {headline(figure)}" for figure in figures)


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table; through a pipe the bare cells with tabs between them, nothing cut."""
    console = Console()
    if not console.is_terminal:
        for row in rows:
            sys.stdout.write("\t".join(plain(cell) for cell in row) + "\n")
        return
    table = _table(*headings)
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    console.print(table)


def print_files(files: Iterable[File]) -> None:
    """A line a file."""
    rows = [(f.id, f.name, f.media_type, f"{f.size:,}", _moment(f.created_at)) for f in files]
    print_rows(("id", "name", "media type", "bytes", "created"), rows)


def print_job_types(types: Iterable[JobType]) -> None:
    """A line a job type."""
    print_rows(("name", "runs on", "what it does"), [(k.name, k.resource, k.title) for k in types])


def print_job_type(kind: JobType) -> None:
    """A job type with the fields of its spec and an example."""
    console = Console()
    console.print(Text(plain(f"{kind.name} {kind.version}: {kind.title}"), style="bold"))
    for text in filter(None, (kind.summary, kind.paper)):
        console.print(Text(plain(text)))
    fields = (kind.spec_schema or {}).get("properties") or {}
    table = _table("field of the spec", "meaning", "default")
    for name, schema in fields.items():
        default = json.dumps(schema["default"]) if "default" in schema else ""
        meaning = Text(plain(schema.get("description", "")))
        table.add_row(Text(plain(name)), meaning, Text(plain(default)))
    console.print(table)
    if kind.example is not None:
        console.print(Text("an example of a spec", style="dim"))
        console.print_json(json.dumps(kind.example))


class _Curves:
    """The newest metrics as small curves, from what was seen of them."""

    _SHOWN, _WIDTH = 2, 24
    _LEVELS = "▁▂▃▄▅▆▇█"

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, float]] = {}

    def add(self, job: JobRecord) -> None:
        for name, point in (job.metrics_now or {}).items():
            if point.get("value") is not None and point.get("step") is not None:
                self._seen.setdefault(name, {})[int(point["step"])] = float(point["value"])

    def text(self) -> str:
        """Such as `loss 0.431 ▇▅▃▁`; empty without metrics."""
        parts = []
        for name, curve in list(self._seen.items())[: self._SHOWN]:
            values = [curve[step] for step in sorted(curve)][-self._WIDTH :]
            low, span = min(values), max(values) - min(values)
            drawn = "".join(
                self._LEVELS[round((value - low) / span * 7) if 0 < span < math.inf else 0]
                for value in values
            )
            parts.append(f"{plain(name)} {values[-1]:.3g} {drawn}")
        return "  ".join(parts)


class _Lines:
    """Progress for logs: one line whenever the state or the phase is another one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: tuple[object, ...] | None = None

    def __call__(self, job: JobRecord) -> None:
        now = (job.raw_state, job.progress.phase if job.progress else None, job.waiting_for)
        if now != self._last:
            self._last = now
            self._console.print(Text(_status(job)), soft_wrap=True)


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[JobRecord], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None, pace="")
        curves = _Curves()

        def update(job: JobRecord) -> None:
            now = job.progress
            curves.add(job)
            if job.waiting_for:
                description = _status(job)
            else:
                description = plain(now.phase if now and now.phase else job.raw_state.lower())
            progress.update(
                task,
                description=description,
                completed=now.current if now else 0,
                total=(now.total or None) if now else None,
                pace=" ".join(filter(None, (_pace(job), curves.text()))),
            )

        yield update


def _is_under_way(job: JobRecord) -> bool:
    return not job.is_terminal and bool(job.progress or job.waiting_for)


def _status(job: JobRecord) -> str:
    if job.waiting_for:
        return plain(f"{job.raw_state}, waits for {', '.join(job.waiting_for)}")
    if job.progress is None or job.is_terminal:
        return plain(job.raw_state)
    done = f"{job.progress.phase} {job.progress.current}/{job.progress.total}"
    return plain(f"{job.raw_state} {done} {_pace(job)}")


def _pace(job: JobRecord) -> str:
    now = job.progress
    if now is None:
        return ""
    rate = f"{now.rate:.1f} {now.unit}/s" if now.rate is not None else ""
    eta = f"{_duration(now.eta_seconds)} left" if now.eta_seconds is not None else ""
    return plain(", ".join(filter(None, (rate, eta))))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _moment(moment: Any) -> str:
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for position, heading in enumerate(headings):
        # Ids are for copying, so the first column is never cut.
        table.add_column(heading, no_wrap=position == 0, overflow="fold")
    return table
