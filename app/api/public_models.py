"""Names of the API's components: stable whatever methods there are, and wherever they lie.

A job type `score-hallucination` has `ScoreHallucinationSpec`, `ScoreHallucinationJobCreate` and
`ScoreHallucinationResult`. The models inside keep their class names, which must be unique: where
two were alike, the document would give both a name with their modules in it, and whoever moves a
file or adds a method would rename somebody else's component.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from pydantic import BaseModel, create_model

from app.schemas import jobs as wire
from methods.jobtype import JobType


@dataclass(frozen=True)
class PublicModels:
    """Spec, request and result of a job type under their public names."""

    spec: type[BaseModel]
    create: type[wire.JobCreate[Any]]
    result: type[BaseModel]


def public_models(job_types: Iterable[JobType]) -> Mapping[str, PublicModels]:
    """The public models, by job type.

    Raises:
        ValueError: two models have one name.
    """
    job_types = list(job_types)
    _check_names(job_types)
    return {job_type.name: _public(job_type) for job_type in job_types}


def any_result(models: Mapping[str, PublicModels]) -> Any:
    """The union of all results, for the route that returns whichever it is."""
    return reduce(or_, (public.result for public in models.values()))


def _public(job_type: JobType) -> PublicModels:
    name = "".join(part.capitalize() for part in job_type.name.split("-"))
    spec = _named(f"{name}Spec", job_type.spec)
    create = _named(f"{name}JobCreate", wire.JobCreate[spec])  # type: ignore[valid-type]
    if job_type.example:
        create.model_config["json_schema_extra"] = {"examples": [{"spec": job_type.example}]}
        create.model_rebuild(force=True)
    return PublicModels(spec, create, _named(f"{name}Result", job_type.result))


def _named(name: str, base: type[BaseModel]) -> Any:
    return create_model(name, __base__=base, __doc__=base.__doc__, __module__=__name__)


def _check_names(job_types: Iterable[JobType]) -> None:
    owners: dict[str, type[BaseModel]] = {
        name: model
        for name, model in vars(wire).items()
        if isinstance(model, type) and issubclass(model, BaseModel)
    }
    for job_type in job_types:
        for root in (job_type.spec, job_type.result):
            for model in _parts(root):
                owner = owners.setdefault(model.__name__, model)
                if owner is not model:
                    raise ValueError(
                        f"{model.__module__}: the job type {job_type.name} has a model "
                        f"{model.__name__}, and so has {owner.__module__}; names of models are "
                        f"public, give it another"
                    )


def _parts(root: type[BaseModel]) -> set[type[BaseModel]]:
    """The models in the fields of a model, however deep."""
    models: set[type[BaseModel]] = set()

    def visit(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if kind not in models:
                models.add(kind)
                for field in kind.model_fields.values():
                    visit(field.annotation)
            return
        # A named alias (`TypeAlias` of Python 3.12) keeps what it stands for.
        visit_all(typing.get_args(getattr(kind, "__value__", kind)))

    def visit_all(kinds: Iterable[Any]) -> None:
        for kind in kinds:
            visit(kind)

    visit_all(field.annotation for field in root.model_fields.values())
    return models - {root}
