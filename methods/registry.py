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
        ValueError: a folder is missing; a spec declares no `JOB`, a malformed name, or a name
            that is taken.
    """
    before = list(methods.__path__)
    try:
        for folder in extra_folders:
            if not folder.is_dir():
                raise ValueError(f"{folder}: no folder of methods")
            if str(folder) not in methods.__path__:
                methods.__path__.append(str(folder))
        importlib.invalidate_caches()
        return MappingProxyType(_scan(methods.__path__))
    except BaseException:
        methods.__path__[:] = before
        raise


def _scan(roots: Iterable[str]) -> dict[str, JobType]:
    found: dict[str, JobType] = {}
    for root in roots:
        folder = Path(root)
        # What a method runs as its children is declared in a room of its own.
        for path in sorted([*folder.glob("*/spec.py"), *folder.glob("*/children/spec.py")]):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            module = importlib.import_module(f"methods.{name}")
            # A folder may declare a second job type that shares its numerics.
            jobs = getattr(module, "JOBS", None) or [getattr(module, "JOB", None)]
            for job in jobs:
                _add(found, job, path)
    return found


def _add(found: dict[str, JobType], job: object, path: Path) -> None:
    if not isinstance(job, JobType):
        raise ValueError(f"{path}: no JOB = JobType(...)")
    if not _NAME.fullmatch(job.name):
        raise ValueError(f"{path}: {job.name!r} is no lower-case-with-hyphens name")
    if job.name in found:
        raise ValueError(f"{path}: the job type {job.name!r} is declared twice")
    found[job.name] = job
