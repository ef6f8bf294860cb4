"""`python -m methods TYPE SPEC.json`: run a method here, with no service.

With --out it writes `result.json`, `report.html` and the artifacts there, and prints what there is
to see; without, the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from methods.errors import JobError
from methods.faults import did_you_mean, explain, pointer
from methods.jobtype import EXTRAS, JobType
from methods.local import LocalContext
from methods.registry import load_registry

if TYPE_CHECKING:
    from datassay.models import ArtifactRef


def main(argv: list[str] | None = None) -> int:
    """Run and show; exit code 1 with a message when the job cannot run."""
    parser = argparse.ArgumentParser(prog="python -m methods", description=__doc__)
    parser.add_argument("type", help="a job type, or `requirements` for what each one lacks here")
    parser.add_argument(
        "spec", type=Path, nargs="?", help="a JSON file; input paths are relative to it"
    )
    parser.add_argument("--out", type=Path, help="folder for result, report and artifacts")
    parser.add_argument("--methods", type=Path, action="append", default=[], metavar="FOLDER")
    args = parser.parse_args(argv)
    registry = load_registry(args.methods)
    if args.type == "requirements":
        print(json.dumps(_requirements(registry)))
        return 0
    if args.spec is None:
        parser.error("the spec is missing: a JSON file")
    if args.type not in registry:
        cure = did_you_mean(args.type, registry) or f"; known: {', '.join(sorted(registry))}"
        parser.error(f"unknown job type {args.type!r}{cure}")
    job = registry[args.type]
    try:
        spec = job.spec.model_validate_json(args.spec.read_bytes())
        inputs = args.spec.parent
        context = LocalContext(args.out or inputs, spec, _show_progress, inputs)
        result = job.load_runner()(spec, context)
    except ValidationError as error:
        for fault in error.errors():
            print(f"{pointer(fault['loc'])}: {explain(fault, job.spec)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except JobError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        if error.details:
            print(json.dumps(error.details, indent=2), file=sys.stderr)
        return 1
    print("\r", end="", file=sys.stderr)
    text = result.model_dump_json(indent=2)
    if args.out is None:
        print(text)
    else:
        (args.out / "result.json").write_text(text + "\n", "utf-8")
        _show(job, json.loads(text), context)
    return 0


def _show(job: JobType, result: dict[str, Any], context: LocalContext) -> None:
    """Write the report beside the result, and print what there is to see."""
    from datassay.blocks import load
    from datassay.models import JobRecord, MetricSeries
    from datassay.report.html import write_report
    from datassay.report.terminal import print_result
    from datassay.view import ResultView

    record = JobRecord(
        id="local",
        type=job.name,
        type_version=job.version,
        raw_state="SUCCEEDED",
        created_at=datetime.now(UTC),
    )
    view = ResultView(result, record)
    series = [
        MetricSeries(name=name, steps=sorted(curve), values=[curve[k] for k in sorted(curve)])
        for name, curve in context.metrics.items()
    ]
    content = load(view.shown.blocks, ArtifactFolder(context.folder), series)
    report = write_report(context.folder / "report.html", view, content)
    print_result(view, content, where=f"Report: {report}")


@dataclass(frozen=True)
class ArtifactFolder:
    """Artifacts that `LocalContext` saved."""

    folder: Path

    def lines(self, artifact: ArtifactRef) -> Iterator[dict[str, Any]]:
        with (self.folder / artifact.id).open("rb") as reader:
            yield from map(json.loads, reader)

    def content(self, artifact: ArtifactRef) -> bytes:
        return (self.folder / artifact.id).read_bytes()


def _requirements(registry: Mapping[str, JobType]) -> dict[str, dict[str, str]]:
    """By job type: the modules that are missing here, each with the extra that brings it."""
    return {
        job_type.name: {module: EXTRAS.get(module, "") for module in job_type.missing()}
        for job_type in registry.values()
    }


def _show_progress(phase: str, current: int, total: int, unit: str) -> None:
    print(f"\r{phase}: {current}/{total} {unit} ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
