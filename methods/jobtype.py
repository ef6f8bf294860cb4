"""What a method declares about itself, once, for the whole service."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from methods.faults import pointer

Resource = Literal["cpu", "gpu", "llm"]
Isolation = Literal["thread", "process"]


class SpecModel(BaseModel):
    """Base of specs and results: unknown fields are refused, NaN and infinity too."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null")


class Reference(str):
    """A string in a spec that stands for something outside it; see the kinds below.

    They have types of their own so that the gateway finds every reference in a spec and checks it,
    without knowing the method.
    """

    __slots__ = ()
    #: `format` of its JSON Schema: forms and generated clients tell references from other texts.
    json_format: ClassVar[str] = ""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "format": cls.json_format}

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(min_length=1, max_length=4096),
            serialization=core_schema.to_string_ser_schema(),
        )


class InputRef(Reference):
    """Bytes to read: in the service the id of an upload (`file_...`) or of a job's artifact
    (`art_...`), or a URI; in `LocalContext` a path.

    The gateway checks that the tenant owns them and records its digest, or that the URI
    (`https://`, `s3://`, `hf://`, optionally with `#sha256=...`) is on the operator's list for the
    tenant; a worker fetches it and records the digest then.
    """

    __slots__ = ()
    json_format = "datassay-input"


class ModelRef(Reference):
    """A model: the name of one that the service's operator declared, or the id of an artifact with
    a model that a job made (`art_...`); in `LocalContext` a path, or the file of such an artifact.

    Never a URL: specs come from strangers.
    """

    __slots__ = ()
    json_format = "datassay-model"


#: What the numerics of most methods import.
NUMERICS = ("numpy", "scipy")
#: Extra of `datassay-server` that brings a module.
EXTRAS = {
    "numpy": "worker",
    "scipy": "worker",
    "regex": "worker",
    "sentencex": "worker",
    "httpx2": "worker",
    "torch": "torch",
    "transformers": "torch",
    "peft": "alignment",
    "trl": "alignment",
    "diffusers": "diffusion",
    "PIL": "torch",
    "pyarrow": "parquet",
    "sklearn": "datasets",
}


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        # A package above it is missing, or broken.
        return False


@dataclass(frozen=True)
class JobType:
    """The declaration of a job type; everything that the service knows of a method is here.

    Attributes:
        name: the public name, lower-case with hyphens, e.g. `score-hallucination`.
        version: raised whenever the same spec may give another result.
        title: a few words for people.
        summary: one or two sentences for the API documentation.
        spec: the request; its field texts are the API documentation.
        result: the answer, validated before it is stored.
        runner: `package.module:function`, imported only where the job runs.
        resource: the class of worker that takes it.
        resource_of: the same where it depends on the spec; it runs in the gateway.
        timeout: default limit of one attempt; `max_timeout` caps what a request may ask for.
        isolation: `thread` (warm, cooperative) or `process` (a spawned child that can be killed).
        internal: only other jobs may submit it, as their child (`RunContext.fan_out`).
        deterministic: the same spec, inputs and version give the same result.
        requires: modules that the runner imports beyond pydantic and the standard library, whatever
            the spec says; a worker without them does not take the job.
        paper: where the method comes from.
        example: a spec that works as it stands; it is shown in the API documentation.
    """

    name: str
    version: str
    title: str
    summary: str
    spec: type[BaseModel]
    result: type[BaseModel]
    runner: str
    resource: Resource = "cpu"
    resource_of: Callable[[Any], Resource] | None = None
    timeout: timedelta = timedelta(hours=1)
    max_timeout: timedelta = timedelta(hours=24)
    isolation: Isolation = "process"
    internal: bool = False
    deterministic: bool = True
    requires: tuple[str, ...] = NUMERICS
    paper: str = ""
    example: dict[str, Any] = field(default_factory=dict)

    def resource_for(self, spec: BaseModel) -> Resource:
        """The class of worker that takes a job with this spec."""
        return self.resource if self.resource_of is None else self.resource_of(spec)

    def missing(self) -> list[str]:
        """Modules that it requires and this installation does not have."""
        return [name for name in self.requires if not _is_installed(name)]

    def load_runner(self) -> Callable[..., BaseModel]:
        """Import and return `run(spec, ctx) -> result`."""
        module, _, function = self.runner.partition(":")
        return getattr(importlib.import_module(module), function)


def input_refs(spec: BaseModel) -> list[tuple[str, InputRef]]:
    """Every `InputRef` of a spec with its JSON pointer, in document order."""
    return [(at, ref) for at, ref in references(spec) if isinstance(ref, InputRef)]


def references(spec: BaseModel) -> list[tuple[str, Reference]]:
    """Every `Reference` of a spec with its JSON pointer, in document order."""
    found: list[tuple[str, Reference]] = []

    def walk(value: object, at: str) -> None:
        if isinstance(value, Reference):
            found.append((at, value))
        elif isinstance(value, BaseModel):
            for name in type(value).model_fields:
                walk(getattr(value, name), f"{at}/{name}")
        elif isinstance(value, dict):
            for key, item in value.items():
                walk(item, at + pointer([key]))
        elif isinstance(value, (list, tuple)) and value and not isinstance(value[0], (int, float)):
            for index, item in enumerate(value):
                walk(item, f"{at}/{index}")

    walk(spec, "")
    return found
