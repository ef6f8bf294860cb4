"""Local files of a command: looked at first, checked with the spec, sent once for each content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from datassay._cli.spec_help import resolved, variants
from datassay.calls import JobOptions
from datassay.client import Client
from datassay.errors import Forbidden, InvalidSpec
from datassay.models import Problem
from datassay.uploads import is_uri

#: Stands for a file that is not sent yet: well-formed, and nobody's.
_STAND_IN = "file_" + "0" * 32
#: Characters of a path; what is longer is no file.
_LONGEST = 4096
#: A place in a spec: the object or list, and the key in it.
Place = tuple[Any, Any]


class MissingFileError(ValueError):
    """A path that leads to no file, or to one without content."""


def name_files(settings: Iterable[str]) -> bool:
    """Whether a value of `--set` is a file that is here."""
    values = (text.partition("=")[2] for text in settings)
    return any(value and len(value) < _LONGEST and Path(value).is_file() for value in values)


def places(client: Client, job_type: str, spec: Mapping[str, Any]) -> list[Place]:
    """Where a spec names files, by the JSON Schema of its job type."""
    schema = client.job_types.get(job_type).spec_schema or {}
    return list(_walk(schema, spec, schema))


def _walk(schema: Mapping[str, Any], value: Any, root: Mapping[str, Any]) -> Iterator[Place]:
    for variant in variants(resolved(schema, root)):
        one = resolved(variant, root)
        if isinstance(value, dict):
            for name, field in (one.get("properties") or {}).items():
                if name in value:
                    yield from _found(field, value, name, root)
        elif isinstance(value, list) and isinstance(one.get("items"), Mapping):
            for number in range(len(value)):
                yield from _found(one["items"], value, number, root)


def _found(
    schema: Mapping[str, Any], holder: Any, key: Any, root: Mapping[str, Any]
) -> Iterator[Place]:
    kinds = [resolved(one, root) for one in variants(resolved(schema, root))]
    if isinstance(holder[key], str):
        if any(one.get("format") == "datassay-input" for one in kinds):
            yield holder, key
    else:
        yield from _walk(schema, holder[key], root)


def check_paths(places: list[Place]) -> list[Place]:
    """Those places that hold paths.

    Raises:
        MissingFileError: there is no such file, or it is empty.
    """
    local = [(holder, key) for holder, key in places if _is_path(holder[key])]
    for holder, key in local:
        path = Path(holder[key])
        if path.is_dir():
            raise MissingFileError(f"{path}: a folder; give the file in it")
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file")
        if not path.stat().st_size:
            raise MissingFileError(f"{path}: the file is empty")
    return local


def _is_path(value: str) -> bool:
    return not is_uri(value) and re.fullmatch(r"(file|art)_[0-9a-f]+", value) is None


def send(
    client: Client,
    job_type: str,
    spec: Mapping[str, Any],
    places: list[Place],
    options: JobOptions,
    *,
    dry_run: bool = False,
) -> None:
    """Put the ids of uploads in the place of paths, once the service finds the rest valid.

    Args:
        dry_run: Only find out whether it does; nothing is sent.

    Raises:
        InvalidSpec: what the service would say of the spec; nothing was sent then.
        MissingFileError: see `check_paths`.
    """
    local = check_paths(places)
    if not local and not dry_run:
        return
    paths = [Path(holder[key]) for holder, key in local]
    for holder, key in local:
        holder[key] = _STAND_IN
    try:
        client.jobs.create(job_type, spec, dry_run=True, **options)
    except InvalidSpec as error:
        others = [fault for fault in error.errors if _STAND_IN not in fault.message]
        if not error.errors:
            raise
        if others:
            detail = f"{others[0].pointer}: {others[0].message}"
            raise InvalidSpec(_problem(error, detail, others)) from error
    if dry_run:
        return
    from datassay._cli.display import transfer_display

    with transfer_display() as show:
        for (holder, key), path in zip(local, paths, strict=True):
            holder[key] = upload(client, path, show)


def _problem(error: InvalidSpec, detail: str, faults: list[Any]) -> Problem:
    return error.problem.model_copy(update={"detail": detail, "errors": faults})


def upload(
    client: Client, path: Path, show: Callable[[str], Callable[[int, int | None], None]]
) -> str:
    """The id of a file with this content: of one that is there, else of a new upload."""
    with path.open("rb") as reader:
        digest = hashlib.file_digest(reader, "sha256").hexdigest()
    # A key that may not list files may send some.
    with suppress(Forbidden):
        for found in client.files.list(sha256=digest, limit=20):
            # The ending may say how it is read.
            if Path(found.name).suffix == path.suffix:
                show(f"{path.name} is there already: {found.id}")
                return found.id
    return client.files.upload(path, on_progress=show(f"uploading {path.name}")).id
