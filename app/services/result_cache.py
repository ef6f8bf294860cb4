"""Earlier results, or jobs that will have them, for a job that is just being submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from infra import metrics
from methods.children import content_key, is_stored
from methods.inference.model_registry import ModelDeclaration, Models
from methods.jobtype import InputRef, JobType, ModelRef, references
from models import queries, transitions


class ResultCache:
    """The result cache of a tenant, for job types whose result is determined by the spec.

    Args:
        models: the declared models by name.
    """

    def __init__(self, models: Mapping[str, ModelDeclaration]) -> None:
        self._models = Models(models)

    def key(
        self, job_type: JobType, spec: BaseModel, inputs: Sequence[Mapping[str, str]]
    ) -> bytes | None:
        """The key of a job's result; None: it depends on more than the spec says.

        A model that a server holds may sample, and what it serves may change; an input without a
        digest is not known before the job runs.
        """
        digests = {entry.get("id"): entry.get("sha256") for entry in inputs}
        refs = [ref for _, ref in references(spec)]
        fixed = all(
            digests.get(ref) is not None
            if is_stored(ref, self._models)
            else self._models.find(ref).path is not None
            for ref in refs
            if isinstance(ref, (ModelRef, InputRef))
        )
        if not job_type.deterministic or not fixed:
            return None
        return bytes.fromhex(
            content_key(job_type, spec, lambda ref: str(digests[ref]), self._models)
        )

    async def insert(self, session: AsyncSession, row: dict[str, Any]) -> Row[Any] | None:
        """Insert the job with an earlier result; None when there is none.

        If the same job is under way, `row` says afterwards that this one waits for it. Call it with
        the key locked (`Quotas.usage_for_update`): of two equal jobs the second sees the first.
        """
        if (hit := (await session.execute(transitions.reuse(row))).first()) is not None:
            metrics.RESULT_CACHE.labels("hit").inc()
            return hit
        statement = queries.cache.in_flight_duplicate(
            row["tenant_id"], row["cache_key"], row["priority"]
        )
        row["waits_for"] = (await session.execute(statement)).scalar_one_or_none()
        metrics.RESULT_CACHE.labels("joined" if row["waits_for"] else "miss").inc()
        return None
