"""What the subcommands of `datassay` do; `datassay._cli.main` has their arguments."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from datassay.calls import JobFilter, JobOptions
from datassay.client import Client
from datassay.result import Result
from datassay.uploads import is_uri

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
    spec = _spec(args)
    if args.input is not None:
        uri = is_uri(args.input)
        spec["input"] = args.input if uri else session.client.files.upload(args.input).id
    options = JobOptions(labels=pairs(args.label, "--label"))
    if args.priority is not None:
        options["priority"] = args.priority
    if args.timeout is not None:
        options["timeout"] = args.timeout
    if args.cache is not None:
        options["cache"] = args.cache
    job = session.client.jobs.create(args.type, spec, dry_run=args.dry_run, **options)
    if args.dry_run:
        tell(session, job, "the spec is valid")
    elif args.wait:
        note(job.id)
        wait_for(job)
        _print_result(session, job.result())
    else:
        tell(session, job, job.id)


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
    sent = [session.client.files.upload(path) for path in args.paths]
    if session.as_json:
        write_json(sent)
    else:
        _write("\n".join(file.id for file in sent))


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
        _write("\n".join(f"{q.what:<14} {q.used:>16,} of {q.limit:,}" for q in usage.quotas))


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
        text = sys.stdin.read() if args.spec == "-" else Path(args.spec).read_text("utf-8")
        try:
            spec = json.loads(text)
        except ValueError as error:
            raise UsageError(f"--spec {args.spec}: no JSON ({error})") from error
    if not isinstance(spec, dict):
        raise UsageError(f"--spec {args.spec}: a JSON object is expected")
    for key, value in pairs(args.set, "--set").items():
        _assign(spec, key, value)
    return spec


def _assign(spec: dict[str, Any], key: str, text: str) -> None:
    *parents, last = key.split(".")
    target = spec
    for name in parents:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise UsageError(f"--set {key}: {name} is no object")
    try:
        target[last] = json.loads(text)
    except ValueError:
        target[last] = text


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
        _write(text)


def write_json(value: Any) -> None:
    def plain(part: Any) -> Any:
        return part.model_dump(mode="json", by_alias=True) if isinstance(part, BaseModel) else part

    _write(json.dumps(value, default=plain, indent=2, ensure_ascii=False))


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
