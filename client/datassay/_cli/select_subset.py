"""`datassay select-subset`: upload the data, choose, download what was chosen."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from datassay._cli import inputs
from datassay._cli.jobs import (
    Session,
    UsageError,
    assign,
    bad_rows,
    note,
    pairs,
    save_artifacts,
    tell,
    wait_for,
    write_json,
    write_lines,
)
from datassay.uploads import is_uri

_FORMATS = ["llava_json", "jsonl", "parquet", "arrow", "csv", "webdataset"]


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add(
        "data",
        metavar="DATA",
        help="rows: JSON lines, a JSON array, CSV, Parquet, Arrow or a WebDataset, compressed or "
        "not; this and every other FILE may be a URI that the service reads (https://, s3://, "
        "hf://)",
    )
    add("--budget", required=True, metavar="BUDGET", help="rows, or a share such as 20%%")
    add("--method", default="xmas", metavar="NAME", help="default: xmas")
    add(
        "--feature",
        action="append",
        default=[],
        metavar="KIND=FILE[,FILE...]",
        help="what is known of the rows; several files are checkpoints in order of time",
    )
    add("--model", metavar="NAME", help="a proxy model of the service, in place of features")
    add("--images", metavar="FILE", help="zip or tar with the image files that rows name")
    add("--embed", metavar="NAME", help="a model of the service that makes embeddings")
    add(
        "--prove",
        nargs="?",
        const="",
        metavar="NAME",
        help="train a model (default: that of --model) on the choice, on random rows and on all, "
        "and compare them",
    )
    add("--duplicates", choices=["report", "drop", "keep"], help="default: report")
    add("--format", choices=_FORMATS, help="default: by the content")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other field of the spec (`datassay submit select-subset --help` lists them); KEY "
        "may have dots, VALUE is JSON or else text, or a FILE where the field is one",
    )
    add("--param", action="append", default=[], metavar="KEY=VALUE", help="of the method")
    add("--group-field", metavar="FIELD", help="a field of the rows, or @source")
    add("--balance", choices=["none", "equal", "proportional"], default="none")
    add("--skip-bad-rows", action="store_true", help="leave bad rows out; default: an error")
    add("--seed", type=int, default=0)
    add(
        "--out",
        metavar="FOLDER",
        help="default: DATA without its ending, and -subset; of a URI in this folder",
    )
    add("--no-wait", action="store_true", help="print the id of the job and leave")


def select_subset(session: Session, args: Namespace) -> None:
    """Choose rows of a file; the files of the result go to a folder."""
    spec = _spec(args)
    places = _places(spec)
    if inputs.name_files(args.set):
        places = inputs.places(session.client, "select-subset", spec)
    inputs.send(session.client, "select-subset", spec, places, {})
    job = session.client.jobs.create("select-subset", spec)
    if args.no_wait:
        tell(session, job, job.id)
        return
    note(job.id)
    wait_for(job)
    found = job.result()
    result = found.data
    folder = Path(args.out) if args.out else _folder(args.data)
    written = save_artifacts(job.artifacts(), folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(
        json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    found.to_html(folder / "report.html")
    for warning in result.get("warnings", []):
        note(f"warning: {warning}")
    for line in bad_rows(result.get("validation") or {}):
        note(line)
    if session.as_json:
        write_json(result)
    else:
        lines = [
            f"{result['selected']} of {result['candidates']} rows, {len(written)} files in "
            f"{folder}",
            *_proof(result.get("proof")),
            f"the report is {folder / 'report.html'}",
        ]
        write_lines(lines)


def _proof(proof: dict[str, Any] | None) -> list[str]:
    """What the trainings of a proof say, a line each."""
    if proof is None:
        return []
    names = {"chosen": "the choice", "random": "random rows", "all": "all rows"}
    lines = [f"held-out loss after {proof['steps']} steps, in nats a token:"]
    for one in proof["sets"]:
        about = "" if one["low"] is None else f" [{one['low']:.3f}, {one['high']:.3f}]"
        lines.append(f"  {names[one['name']]:<12} {one['rows']:>8} rows  {one['loss']:.3f}{about}")
    ends = proof["difference"]
    about = "" if ends["low"] is None else f" [{ends['low']:.3f}, {ends['high']:.3f}]"
    lines.append(f"random - chosen: {ends['mean']:.3f}{about}: {proof['verdict']}")
    return lines


def _plain_path(source: str) -> Path:
    """A path, or that of a URI without its query and digest."""
    return Path(urlsplit(source).path) if is_uri(source) else Path(source)


def _folder(source: str) -> Path:
    name = _plain_path(source).name.split(".")[0] + "-subset"
    return Path(name) if is_uri(source) else Path(source).with_name(name)


def _spec(args: Namespace) -> dict[str, Any]:
    """The spec, with paths where the ids of uploads will be."""
    if args.model is not None and args.feature:
        raise UsageError("give --feature or --model, not both")
    spec: dict[str, Any] = {
        "dataset": {"input": args.data},
        "budget": budget(args.budget),
        "method": args.method,
        "params": {key: _value(text) for key, text in pairs(args.param, "--param").items()},
        "on_bad_rows": "skip" if args.skip_bad_rows else "error",
        "seed": args.seed,
    }
    if args.format is not None:
        spec["dataset"]["format"] = args.format
    if args.duplicates is not None:
        spec["duplicates"] = args.duplicates
    if args.embed is not None:
        spec["embed"] = {"model": args.embed}
    if args.prove is not None:
        spec["prove"] = {"model": args.prove} if args.prove else {}
    if args.images is not None:
        spec["dataset"]["images"] = args.images
    if args.group_field is not None:
        spec["groups"] = {"field": args.group_field, "balance": args.balance}
    if args.model is not None:
        spec["model"] = {"name": args.model}
    if args.feature:
        features = []
        for kind, files in pairs(args.feature, "--feature").items():
            names = files.split(",")
            source = {"input": names[0]} if len(names) == 1 else {"inputs": names}
            features.append({"kind": kind, **source})
        spec["features"] = features
    for key, value in pairs(args.set, "--set").items():
        assign(spec, key, value)
    return spec


def budget(text: str) -> dict[str, Any]:
    """`20%` is a share, `1000` a number of rows.

    Raises:
        UsageError: it is neither.
    """
    try:
        if text.endswith("%"):
            share = float(Decimal(text[:-1]) / 100)
            if 0 < share <= 1:
                return {"fraction": share}
        elif int(text) > 0:
            return {"count": int(text)}
    except (ValueError, ArithmeticError):
        pass
    raise UsageError(f"--budget {text}: a number of rows or a share such as 20% is expected")


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _places(spec: dict[str, Any]) -> list[inputs.Place]:
    """Where a spec names files."""
    places: list[inputs.Place] = [(spec["dataset"], "input")]
    places += [(spec["dataset"], "images")] if "images" in spec["dataset"] else []
    for feature in spec.get("features", []):
        if "input" in feature:
            places.append((feature, "input"))
        else:
            places += [(feature["inputs"], number) for number in range(len(feature["inputs"]))]
    return places
