"""What the inputs of a spec stand for: the tenant's uploads and artifacts, URIs it may read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.problems import InvalidSpec
from app.schemas.jobs import FieldError
from app.services.auth import Caller
from methods.children import is_stored
from methods.inference.made_models import MEDIA_TYPE
from methods.inference.model_registry import Models
from methods.jobtype import ModelRef, Reference
from models import queries
from models.queries import accounts
from outbound.guard import Refused
from outbound.input_sources import Sources, is_uri, split_digest

Refs = list[tuple[str, Reference]]


class InputResolver:
    """Checks inputs and models that jobs made; nothing is fetched here, a worker does that."""

    def __init__(self, sources: Sources, models: Models) -> None:
        self._sources, self._models = sources, models

    async def resolve(
        self,
        session: AsyncSession,
        caller: Caller,
        references: Refs,
        seen: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """The inputs as they are stored with the job, with the digests that are known by now.

        Args:
            seen: URIs that an earlier job with the same spec has read.

        Raises:
            InvalidSpec: an upload or artifact that the caller does not own, a URI that is not
                allowed.
        """
        refs = [(f"/spec{at}", ref) for at, ref in references if is_stored(ref, self._models)]
        names = [str(ref) for _, ref in refs]
        stored = await self._stored(session, caller, names)
        tenant = await self._tenant(session, caller, names)
        faults, resolved = [], []
        for pointer, ref in refs:
            if is_uri(ref):
                try:
                    resolved.append({"pointer": pointer, **self._by_uri(tenant, ref, seen or {})})
                except Refused as error:
                    text = f"{ref[:200]}: {error} (rule: {error.rule})"
                    faults.append(FieldError(pointer=pointer, message=text))
            elif ref not in stored:
                kind = "model" if isinstance(ref, ModelRef) else "file"
                text = f"there is no {kind} {ref[:64]}"
                faults.append(FieldError(pointer=pointer, message=text))
            elif isinstance(ref, ModelRef) and stored[ref].media_type != MEDIA_TYPE:
                text = f"{ref} is not a model that a job made, but {stored[ref].media_type}"
                faults.append(FieldError(pointer=pointer, message=text))
            else:
                resolved.append({"pointer": pointer, "id": ref, "sha256": stored[ref].sha256})
        if faults:
            raise invalid_spec(faults)
        return resolved

    def _by_uri(
        self, tenant: str, ref: str, seen: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, str]:
        self._sources.check(tenant, ref)
        uri, digest = split_digest(ref)
        digest = digest or seen.get(uri, {}).get("sha256")
        return {"uri": uri} | ({"sha256": digest} if digest else {})

    async def _stored(
        self, session: AsyncSession, caller: Caller, refs: list[str]
    ) -> dict[str, Any]:
        ids = [ref for ref in refs if not is_uri(ref)]
        if not ids:
            return {}
        rows = await session.execute(queries.files.stored_inputs(caller.tenant_id, ids))
        return {row.id: row for row in rows.all()}

    async def _tenant(self, session: AsyncSession, caller: Caller, refs: list[str]) -> str:
        if not any(map(is_uri, refs)):
            return ""
        return (await session.execute(accounts.tenant_name(caller.tenant_id))).scalar_one()


def invalid_spec(faults: list[FieldError]) -> InvalidSpec:
    """The problem of these faults; its text is that of the first."""
    return InvalidSpec(f"{faults[0].pointer}: {faults[0].message}", errors=faults)
