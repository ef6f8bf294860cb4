"""`python -m methods TYPE SPEC.json`: run a method here, with no service."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from methods.errors import JobError
from methods.faults import did_you_mean, explain, pointer
from methods.jobtype import EXTRAS, JobType
from methods.local import LocalContext
from methods.registry import load_registry


def main(argv: list[str] | None = None) -> int:
    """Print the result as JSON; exit code 1 with a message when the job cannot run."""
    parser = argparse.ArgumentParser(prog="python -m methods", description=__doc__)
    parser.add_argument("type", help="a job type, or `requirements` for what each one lacks here")
    parser.add_argument(
        "spec", type=Path, nargs="?", help="a JSON file; input paths are relative to it"
    )
    parser.add_argument("--out", type=Path, help="folder for artifacts (default: the spec's)")
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
    print(result.model_dump_json(indent=2))
    return 0


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
