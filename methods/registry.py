"""Finds every method by folder scan; nothing is registered by hand."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import methods
from methods.jobtype import JobType

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def load_registry(extra_folders: Iterable[Path] = ()) -> Mapping[str, JobType]:
    """All job types, by name.

    Args:
        extra_folders: folders that hold further method folders beside the bundled ones; each
            becomes part of the package `methods`, so its runners are importable like the others.

    Raises:
        ValueError: a spec declares no `JOB`, a malformed name, or a name that is taken.
    """
    for folder in extra_folders:
        if str(folder) not in methods.__path__:
            methods.__path__.append(str(folder))
    importlib.invalidate_caches()
    found: dict[str, JobType] = {}
    for root in methods.__path__:
        for path in sorted(Path(root).glob("*/spec.py")):
            module = importlib.import_module(f"methods.{path.parent.name}.spec")
            # A folder may declare a second job type that shares its numerics.
            jobs = getattr(module, "JOBS", None) or [getattr(module, "JOB", None)]
            for job in jobs:
                _add(found, job, path)
    return MappingProxyType(found)


def _add(found: dict[str, JobType], job: object, path: Path) -> None:
    if not isinstance(job, JobType):
        raise ValueError(f"{path}: no JOB = JobType(...)")
    if not _NAME.fullmatch(job.name):
        raise ValueError(f"{path}: {job.name!r} is no lower-case-with-hyphens name")
    if job.name in found:
        raise ValueError(f"{path}: the job type {job.name!r} is declared twice")
    found[job.name] = job
