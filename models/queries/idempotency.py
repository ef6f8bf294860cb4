"""Idempotency keys: the job that a key made."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import insert as upsert

from models.tables import IdempotencyKey


def claim(tenant_id: str, key: str, digest: bytes, job_id: str) -> Any:
    """Claim an Idempotency-Key; no row when another request holds it already."""
    return (
        upsert(IdempotencyKey)
        .values(tenant_id=tenant_id, key=key, request_digest=digest, job_id=job_id)
        .on_conflict_do_nothing()
        .returning(IdempotencyKey.job_id)
    )


def get(tenant_id: str, key: str) -> Select[bytes, str]:
    """The request digest and the job of an Idempotency-Key."""
    return select(IdempotencyKey.request_digest, IdempotencyKey.job_id).where(
        IdempotencyKey.tenant_id == tenant_id, IdempotencyKey.key == key
    )
