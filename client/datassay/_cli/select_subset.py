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
    note,
    pairs,
    save_artifacts,
    tell,
    wait_for,
    write_json,
)
from datassay.uploads import is_uri

_FORMATS = {
    ".json": "llava_json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".tar": "webdataset",
}


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of the command."""
    add = parser.add_argument
    add(
        "data",
        metavar="DATA",
        help="rows: .jsonl, .json (LLaVA), .parquet or .tar (WebDataset); this and every other "
        "FILE may be a URI that the service reads (https://, s3://, hf://)",
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
    add("--format", choices=sorted(set(_FORMATS.values())), help="default: by the file's ending")
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
    inputs.send(session.client, "select-subset", spec, _places(spec), {})
    job = session.client.jobs.create("select-subset", spec)
    if args.no_wait:
        tell(session, job, job.id)
        return
    note(job.id)
    wait_for(job)
    result = job.result().data
    folder = Path(args.out) if args.out else _folder(args.data)
    written = save_artifacts(job.artifacts(), folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(
        json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for warning in result.get("warnings", []):
        note(f"warning: {warning}")
    if session.as_json:
        write_json(result)
    else:
        text = f"{result['selected']} of {result['candidates']} rows, {len(written)} files in "
        tell(session, job, f"{text}{folder}")


def _plain_path(source: str) -> Path:
    """A path, or that of a URI without its query and digest."""
    return Path(urlsplit(source).path) if is_uri(source) else Path(source)


def _folder(source: str) -> Path:
    name = _plain_path(source).name.split(".")[0] + "-subset"
    return Path(name) if is_uri(source) else Path(source).with_name(name)


def _spec(args: Namespace) -> dict[str, Any]:
    """The spec, with paths where the ids of uploads will be."""
    form = args.format or _FORMATS.get(_plain_path(args.data).suffix.lower())
    if form is None:
        raise UsageError(f"{args.data}: give --format, the ending says nothing")
    if args.model is not None and args.feature:
        raise UsageError("give --feature or --model, not both")
    spec: dict[str, Any] = {
        "dataset": {"input": args.data, "format": form},
        "budget": budget(args.budget),
        "method": args.method,
        "params": {key: _value(text) for key, text in pairs(args.param, "--param").items()},
        "on_bad_rows": "skip" if args.skip_bad_rows else "error",
        "seed": args.seed,
    }
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
