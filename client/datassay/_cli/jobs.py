"""What the subcommands of `datassay` do; `datassay._cli.main` has their arguments."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import webbrowser
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from datassay._cli import inputs
from datassay.artifacts import Artifact
from datassay.calls import JobFilter, JobOptions
from datassay.client import Client
from datassay.result import Result

if TYPE_CHECKING:
    from datassay.jobs import Job


class UsageError(ValueError):
    """Arguments that parse but mean nothing."""


@dataclass(frozen=True, slots=True)
class Session:
    """One run of the command: the client and how to answer."""

    client: Client
    as_json: bool


def submit(session: Session, args: Namespace) -> None:
    """Submit a job; with --wait also wait for it and print the result."""
    if args.help or args.type is None:
        _help(session, args)
        return
    spec = _spec(args)
    if args.input is not None:
        spec["input"] = args.input
    options = JobOptions(labels=pairs(args.label, "--label"))
    if args.priority is not None:
        options["priority"] = args.priority
    if args.timeout is not None:
        options["timeout"] = args.timeout
    if args.cache is not None:
        options["cache"] = args.cache
    places: list[inputs.Place] = []
    if inputs.name_files(args.set):
        places = inputs.places(session.client, args.type, spec)
    elif isinstance(spec.get("input"), str):
        places = [(spec, "input")]
    inputs.send(session.client, args.type, spec, places, options, dry_run=args.dry_run)
    if args.dry_run:
        note("nothing was sent, nothing runs")
        _write(json.dumps({"valid": True}) if session.as_json else "the spec is valid")
        return
    job = session.client.jobs.create(args.type, spec, **options)
    if args.wait:
        note(job.id)
        wait_for(job)
        _print_result(session, job.result())
    else:
        tell(session, job, job.id)


def _help(session: Session, args: Namespace) -> None:
    if args.type is None:
        args.parser.print_help()
        if not args.help:
            raise UsageError("submit: name a job type; `datassay types` lists them")
        return
    from datassay._cli import spec_help

    kind = session.client.job_types.get(args.type)
    found = spec_help.options(kind.spec_schema or {})
    title = f"datassay submit {kind.name}: {kind.title}"
    text = spec_help.render(title, kind.summary, found, kind.example)
    write_lines(text.splitlines())


def wait(session: Session, args: Namespace) -> None:
    """Wait for a job under a progress bar."""
    job = session.client.jobs.get(args.id)
    wait_for(job)
    tell(session, job, f"{job.id} {job.raw_state}")


def show(session: Session, args: Namespace) -> None:
    """Show a job."""
    job = session.client.jobs.get(args.id)
    if session.as_json:
        write_json(job)
        return
    from datassay._cli.display import print_job

    print_job(job)


def result(session: Session, args: Namespace) -> None:
    """Print or save a result."""
    result = session.client.jobs.result(args.id)
    if args.out is not None:
        text = json.dumps(result.data, indent=2, ensure_ascii=False)
        Path(args.out).write_text(text + "\n", encoding="utf-8")
        note(f"wrote {args.out}")
    if args.html is not None:
        note(f"wrote {result.to_html(args.html)}")
    if session.as_json or (args.out is None and args.html is None):
        _print_result(session, result)


def download(session: Session, args: Namespace) -> None:
    """Download the files that a job made."""
    job = session.client.jobs.get(args.id)
    found = job.artifacts()
    if args.name:
        names = [artifact.record.name for artifact in found]
        if unknown := [name for name in args.name if name not in names]:
            known = ", ".join(names) or "none"
            raise UsageError(f"--name {unknown[0]}: the job has no such file; it has: {known}")
        found = [artifact for artifact in found if artifact.record.name in args.name]
    written = save_artifacts(found, Path(args.out or _file_name(job.id)))
    if session.as_json:
        write_json([str(path) for path in written])
    elif not written:
        note(f"{job.id} made no files; `datassay result {job.id} --out FILE` writes its result")
    else:
        write_lines(map(str, written))


def open_report(session: Session, args: Namespace) -> None:
    """Show the report of a job in a browser."""
    job = session.client.jobs.get(args.id)
    if args.link:
        write_lines([job.report_url(args.days and 86_400 * args.days)])
        return
    path = Path(tempfile.mkdtemp(prefix="datassay-")) / f"{_file_name(job.id)}.html"
    job.result().to_html(path)
    if webbrowser.open(path.as_uri()):
        note(f"opened {path}")
    else:
        note("there is no browser here; the report is")
        write_lines([str(path)])


def metrics(session: Session, args: Namespace) -> None:
    """Print what a job reported over time."""
    found = session.client.jobs.get(args.id).metrics()
    if session.as_json:
        write_json(found)
        return
    from datassay._cli.display import print_rows

    rows = [
        (series.name, str(step), "" if value is None else f"{value:.6g}")
        for series in found.series
        for step, value in zip(series.steps, series.values, strict=True)
    ]
    print_rows(("metric", "step", "value"), rows)


def demo(session: Session, args: Namespace) -> None:
    """Score real answers of a small model, and write the report."""
    from importlib.resources import as_file, files

    from datassay._cli.display import transfer_display

    answers = files("datassay").joinpath("demo", "answers.jsonl")
    with as_file(answers) as path, transfer_display() as show:
        uploaded = inputs.upload(session.client, path, show)
    spec = {"input": uploaded, "scorers": ["snne", "semantic_entropy"]}
    job = session.client.jobs.create("score-hallucination", spec)
    note(f"{job.id}: 160 questions, ten answers each, by Gemma 3 270M")
    wait_for(job)
    result = job.result()
    _print_result(session, result)
    note(f"wrote {result.to_html(args.report)}")
    note("your own data: datassay submit score-hallucination --input FILE.jsonl --wait")


def cancel(session: Session, args: Namespace) -> None:
    """Ask that a job stop."""
    job = session.client.jobs.cancel(args.id)
    tell(session, job, f"{job.id} {job.raw_state}")


def retry(session: Session, args: Namespace) -> None:
    """Submit the spec of an ended job again."""
    job = session.client.jobs.retry(args.id)
    tell(session, job, job.id)


def list_jobs(session: Session, args: Namespace) -> None:
    """List jobs."""
    condition = JobFilter(labels=pairs(args.label, "--label"))
    if args.type:
        condition["type"] = args.type
    if args.state:
        condition["state"] = args.state
    jobs = list(session.client.jobs.list(limit=args.limit, **condition))
    if session.as_json:
        write_json(jobs)
        return
    from datassay._cli.display import print_jobs

    print_jobs(jobs)


def events(session: Session, args: Namespace) -> None:
    """Print events, as JSON one a line."""
    for event in session.client.jobs.events(args.id, follow=args.follow):
        data = json.dumps(event.data, ensure_ascii=False)
        moment = f"{event.created_at:%H:%M:%S}"
        line = f"{event.seq:>5}  {moment}  {event.kind:<8}  {data}"
        _write(event.model_dump_json(by_alias=True) if session.as_json else printable(line))


def upload(session: Session, args: Namespace) -> None:
    """Upload files."""
    from datassay._cli.display import transfer_display

    inputs.check_paths([(args.paths, number) for number in range(len(args.paths))])
    with transfer_display() as show:
        ids = [inputs.upload(session.client, Path(path), show) for path in args.paths]
    if session.as_json:
        write_json([session.client.files.get(one) for one in ids])
    else:
        write_lines(ids)


def list_files(session: Session, args: Namespace) -> None:
    """List uploaded files."""
    files = list(session.client.files.list(limit=args.limit))
    if session.as_json:
        write_json(files)
        return
    from datassay._cli.display import print_files

    print_files(files)


def delete_files(session: Session, args: Namespace) -> None:
    """Delete uploaded files."""
    for file_id in args.ids:
        session.client.files.delete(file_id)
        note(f"deleted {file_id}")


def usage(session: Session, args: Namespace) -> None:
    """Show what the tenant takes up."""
    usage = session.client.usage()
    if session.as_json:
        write_json(usage)
    else:
        write_lines(f"{q.what:<14} {q.used:>16,} of {q.limit:,}" for q in usage.quotas)


def types(session: Session, args: Namespace) -> None:
    """List the job types or show one."""
    from datassay._cli.display import print_job_type, print_job_types

    if args.name is not None:
        job_type = session.client.job_types.get(args.name)
        write_json(job_type) if session.as_json else print_job_type(job_type)
    else:
        every = session.client.job_types.list()
        write_json(every) if session.as_json else print_job_types(every)


def printable(text: str) -> str:
    """`text` without control characters, which could steer the terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def _spec(args: Namespace) -> dict[str, Any]:
    spec: Any = {}
    if args.spec is not None:
        if args.spec == "-":
            if sys.stdin is None:
                raise UsageError("--spec -: there is no standard input")
            text = sys.stdin.read()
        else:
            text = Path(args.spec).read_text("utf-8-sig")
        try:
            spec = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--spec {args.spec}: not JSON ({error})") from error
    if not isinstance(spec, dict):
        raise UsageError(f"--spec {args.spec}: a JSON object is expected")
    for key, value in pairs(args.set, "--set").items():
        assign(spec, key, value)
    return spec


def assign(spec: dict[str, Any], key: str, text: str) -> None:
    """Set a field of a spec; dots in its name lead into objects.

    Raises:
        UsageError: they lead into something else.
    """
    *parents, last = key.split(".")
    target = spec
    for name in parents:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise UsageError(f"--set {key}: {name} is no object")
    try:
        target[last] = json.loads(text)
    except (ValueError, RecursionError):
        target[last] = text


#: Bad rows that are shown.
_BAD_ROWS = 10


def bad_rows(details: Mapping[str, Any]) -> list[str]:
    """The first bad rows of what a job says of them, a line each."""
    # Some say the rows themselves under `rows`, others how many there are.
    found = details.get("examples") or details.get("rows")
    listed = found if isinstance(found, list) else []
    rows = [row for row in listed if isinstance(row, dict) and "row" in row]
    lines = []
    for row in rows[:_BAD_ROWS]:
        name = f" ({row['id']})" if row.get("id") is not None else ""
        problem = f"{row.get('field') or ''} {row.get('problem') or ''}".strip()
        lines.append(f"row {row['row']}{name}: {problem}")
    total = details.get("bad_rows", len(rows))
    if isinstance(total, int) and lines and total > len(lines):
        lines.append(f"and {total - len(lines)} more")
    return lines


def save_artifacts(artifacts: Iterable[Artifact], folder: Path) -> list[Path]:
    """Download artifacts into a folder; returns the paths."""
    from datassay._cli.display import transfer_display

    written = []
    with transfer_display() as show:
        for artifact in artifacts:
            folder.mkdir(parents=True, exist_ok=True)
            # A name from the service must not lead out of the folder.
            path = folder / Path(artifact.record.name).name
            advance, total = show(f"downloading {path.name}"), artifact.record.size
            written.append(artifact.download(path, partial(_advance, advance, total)))
    return written


def _file_name(job_id: str) -> str:
    """An id that the service sent, as a name that cannot lead elsewhere."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", job_id)[:64] or "job"


def _advance(show: Callable[[int, int | None], None], total: int, done: int) -> None:
    show(done, total)


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"{option} {text}: KEY=VALUE is expected")
        pairs[key] = value
    return pairs


def wait_for(job: Job) -> None:
    from datassay._cli.display import progress_display

    with progress_display() as update:
        update(job)
        job.wait(on_progress=update)


def _print_result(session: Session, result: Result) -> None:
    if session.as_json:
        write_json(result.data)
    else:
        result.print()


def tell(session: Session, job: Job, text: str) -> None:
    if session.as_json:
        write_json(job)
    else:
        write_lines([text])


def write_json(value: Any) -> None:
    def plain(part: Any) -> Any:
        return part.model_dump(mode="json", by_alias=True) if isinstance(part, BaseModel) else part

    text = json.dumps(value, default=plain, indent=2, ensure_ascii=False)
    # What could steer a terminal stands in strings only, where JSON has a way to write it.
    _write("".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text))


def write_lines(lines: Iterable[str]) -> None:
    """Lines of the answer, fit for a terminal."""
    for line in lines:
        _write(printable(line))


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Say something beside the answer, which alone goes to standard output."""
    sys.stderr.write(printable(text) + "\n")
