"""Children of a job: what they are to the runner that asked for them, and what names them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, BinaryIO

from pydantic import BaseModel

from methods.inference.model_registry import Models
from methods.jobtype import InputRef, JobType, ModelRef, Reference, references


@dataclass(frozen=True)
class Child:
    """A job that another one asked for, and that has succeeded.

    Attributes:
        place: of its spec among those that were asked for.
        id: of the job.
        result: as JSON data, by the result schema of its type.
        reused: it was there, or under way, before this job asked for it.
    """

    place: int
    id: str
    result: dict[str, Any]
    reused: bool
    _open: Callable[[str], BinaryIO] = field(repr=False, compare=False)

    def open(self, name: str) -> BinaryIO:
        """Open an artifact for reading."""
        return self._open(name)


def content_key(
    job_type: JobType, spec: BaseModel, digest: Callable[[Reference], str], models: Models
) -> str:
    """A digest of all that determines the result: type, version, spec, inputs, models.

    Inputs count by their bytes and not by their names: the same file, uploaded twice, is the same.

    Args:
        digest: SHA-256 of an input, or of a model that a job made.
        models: what the names of models stand for here.

    Raises:
        JobError: `model_unknown`, or what `digest` raises.
    """
    names, stands_for = spec.model_dump(mode="json"), {}
    for pointer, ref in references(spec):
        if is_stored(ref, models):
            _replace(names, pointer, digest(ref))
        elif isinstance(ref, ModelRef):
            stands_for[str(ref)] = models.find(ref).model_dump(mode="json")
    content = {
        "type": job_type.name,
        "version": job_type.version,
        "spec": names,
        "models": stands_for,
    }
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_stored(ref: Reference, models: Models) -> bool:
    """Whether a reference stands for bytes: an input, or a model that a job made."""
    return isinstance(ref, InputRef) or (isinstance(ref, ModelRef) and models.is_made(ref))


def _replace(data: Any, pointer: str, value: str) -> None:
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for part in way:
        data = data[part] if isinstance(data, Mapping) else data[int(part)]
    data[last if isinstance(data, Mapping) else int(last)] = value
