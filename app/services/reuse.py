"""Results that are there already, or on their way, for a job that is just being submitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from app.services.counters import Counters
from methods.content_key import content_key
from methods.inference.declared import ModelDeclaration
from methods.jobtype import InputRef, JobType, ModelRef, Reference
from models import repositories, transitions

#: What of a declaration decides neither the weights nor how they are used.
_ASIDE = {"max_in_flight", "api_key_env"}


class Reuse:
    """The result cache: within a tenant, for job types whose result the spec decides.

    Args:
        models: the declared models by name.
    """

    def __init__(self, models: Mapping[str, ModelDeclaration], counters: Counters) -> None:
        self._models, self._counters = models, counters

    def key(
        self,
        job_type: JobType,
        spec: Mapping[str, Any],
        references: Sequence[tuple[str, Reference]],
        inputs: Sequence[Mapping[str, str]],
    ) -> bytes | None:
        """The key of a job's result; None: it depends on more than the spec says."""
        digests = {entry["pointer"]: entry.get("sha256") for entry in inputs}
        return content_key(
            job_type,
            spec,
            {at: digests.get(f"/spec{at}") for at, ref in references if isinstance(ref, InputRef)},
            {
                at: self._models[ref].model_dump(exclude=_ASIDE)
                for at, ref in references
                if isinstance(ref, ModelRef)
            },
        )

    async def insert(self, session: AsyncSession, row: dict[str, Any]) -> Row[Any] | None:
        """Insert the job with an earlier result; None when there is none.

        If the same job is under way, `row` says afterwards that this one waits for it. Call it with
        the tenant locked, so that of two the second sees the first.
        """
        if (hit := (await session.execute(transitions.reuse(row))).first()) is not None:
            self._counters.add("cache", "hit")
            return hit
        statement = repositories.twin(row["tenant_id"], row["cache_key"], row["priority"])
        row["waits_for"] = (await session.execute(statement)).scalar_one_or_none()
        self._counters.add("cache", "joined" if row["waits_for"] else "miss")
        return None
