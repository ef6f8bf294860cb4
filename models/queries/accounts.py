"""Statements over tenants, their keys, what they may take up, and the audit trail.

Built here, executed by the caller's session.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Delete,
    Float,
    Insert,
    Integer,
    Select,
    Update,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from models.queries._statement import Prepared
from models.states import LEASED, JobState
from models.tables import ApiKey, AuditRecord, Job, Tenant

Statement = Select[*tuple[Any, ...]]

#: What is shown of a key; its digest never leaves the database.
_KEY = [c for c in ApiKey.__table__.c if c.name != "digest"]
_LIMITS = (Tenant.max_queued_jobs, Tenant.max_running_jobs, Tenant.max_stored_bytes)


def _live() -> ColumnElement[bool]:
    return and_(
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
    )


def _unseen() -> ColumnElement[bool]:
    long_ago = func.now() - timedelta(minutes=1)
    return or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < long_ago)


_KEY_BY_DIGEST = select(
    ApiKey.id,
    ApiKey.tenant_id,
    ApiKey.scopes,
    cast(func.extract("epoch", ApiKey.expires_at - func.now()), Float).label("seconds_left"),
    _unseen().label("unseen"),
).where(ApiKey.digest == bindparam("digest"), _live())


def key_by_digest(digest: bytes) -> Prepared:
    """The live key with this HMAC. The look-up is by index: it takes as long for any wrong key.

    `seconds_left` is null for a key that does not expire; `unseen`: `touch_key` is due.
    """
    return _KEY_BY_DIGEST, {"digest": digest}


def touch_key(key_id: str) -> Update:
    """Note the use of a key, at most once a minute, and not while its submissions hold it."""
    free = select(ApiKey.id).where(ApiKey.id == key_id, _unseen())
    free = free.with_for_update(key_share=True, skip_locked=True)
    return update(ApiKey).where(ApiKey.id.in_(free)).values(last_used_at=func.now())


def ensure_tenant(tenant_id: str, name: str) -> Any:
    """Insert a tenant unless its name is there; select it with `tenant_named` afterwards."""
    return upsert(Tenant).values(id=tenant_id, name=name).on_conflict_do_nothing()


def tenant_name(tenant_id: str) -> Select[str]:
    """What settings call a tenant."""
    return select(Tenant.name).where(Tenant.id == tenant_id)


def tenant_named(name: str) -> Select[str]:
    """The id of a tenant."""
    return select(Tenant.id).where(Tenant.name == name)


def add_key(row: Mapping[str, Any]) -> Insert:
    """Insert an API key."""
    return insert(ApiKey).values(**row)


def keys() -> Statement:
    """All keys with their tenants, for the operator's command."""
    return (
        select(ApiKey, Tenant.name)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .order_by(ApiKey.created_at)
    )


def revoke_key(key_id: str, tenant_id: str | None = None) -> Any:
    """Revoke a key; no row when there is no such live key (of that tenant)."""
    mine = [] if tenant_id is None else [ApiKey.tenant_id == tenant_id]
    return (
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None), *mine)
        .values(revoked_at=func.now())
        .returning(*_KEY)
    )


def keys_of(tenant_id: str, limit: int, after: Any | None) -> Statement:
    """A tenant's keys, newest first."""
    statement = select(*_KEY).where(ApiKey.tenant_id == tenant_id)
    if after is not None:
        statement = statement.where(tuple_(ApiKey.created_at, ApiKey.id) < tuple_(*after))
    return statement.order_by(ApiKey.created_at.desc(), ApiKey.id.desc()).limit(limit)


def key_of(tenant_id: str, key_id: str) -> Statement:
    """One of a tenant's keys, with the tenant's name."""
    return (
        select(*_KEY, Tenant.name.label("tenant_name"))
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .where(ApiKey.tenant_id == tenant_id, ApiKey.id == key_id)
    )


# Quotas


def usage_for_update(tenant_id: str, key_id: str, most_queued: int) -> Prepared:
    """Limits of a tenant and what it takes up.

    `most_queued` jobs are its limit where it has none of its own. Near the limit of queued jobs its
    submissions go one after another from here to the commit.

    No row when the key has ended meanwhile. Its lock makes a revocation wait for those who hold it,
    so that a key that was revoked adds nothing any more. Locks on files come before it.
    """
    return _ROOM, {"tenant": tenant_id, "key": key_id, "most_queued": most_queued}


def lock_tenant(tenant_id: str) -> Select[str]:
    """Lets the tenant's uploads go one after another: they have sizes of their own."""
    return select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True)


def lock_cache_key(tenant_id: str, cache_key: bytes) -> Statement:
    """Lets submissions of the same job go one after another: of two the second sees the first."""
    number = int.from_bytes(sha256(tenant_id.encode() + cache_key).digest()[:8], signed=True)
    return select(func.pg_advisory_xact_lock(cast(number, BigInteger)))


def queued_jobs(tenant_id: str) -> Select[int]:
    """How many jobs of a tenant wait; children belong to their parents."""
    return _count(tenant_id, [JobState.QUEUED])


def _count(tenant_id: str, states: Collection[JobState]) -> Select[int]:
    return select(func.count()).where(
        Job.tenant_id == tenant_id,
        Job.finished_at.is_(None),
        Job.state.in_(states),
        Job.content_key.is_(None),
    )


_MOST_QUEUED = func.coalesce(Tenant.max_queued_jobs, bindparam("most_queued", type_=Integer))
_ROOM = (
    select(
        *_LIMITS,
        Tenant.stored_bytes,
        func.tenants_queued_jobs(
            Tenant.id,
            func.coalesce(Tenant.max_queued_jobs, bindparam("most_queued", type_=Integer)),
        ).label("queued_jobs"),
    )
    .join(ApiKey, ApiKey.tenant_id == Tenant.id)
    .where(Tenant.id == bindparam("tenant"), ApiKey.id == bindparam("key"), _live())
    .with_for_update(read=True, of=ApiKey)
)


def usage(tenant_id: str) -> Statement:
    """What a tenant takes up, and its own limits."""
    return select(
        *_LIMITS,
        Tenant.stored_bytes,
        queued_jobs(tenant_id).scalar_subquery().label("queued_jobs"),
        _count(tenant_id, LEASED).scalar_subquery().label("running_jobs"),
    ).where(Tenant.id == tenant_id)


def tenants() -> Select[Tenant]:
    """All tenants, for the operator's command."""
    return select(Tenant).order_by(Tenant.name)


def limit_tenant(tenant_id: str, limits: Mapping[str, int | None]) -> Update:
    """Give a tenant limits of its own; None takes one back."""
    return update(Tenant).where(Tenant.id == tenant_id).values(**limits)


# The audit trail


def add_audit(row: Mapping[str, Any], retention: timedelta) -> Insert:
    """Note a change, in the transaction that makes it."""
    return insert(AuditRecord).values(**row, expires_at=func.now() + retention)


def audit(tenant_id: str, limit: int, before: int | None) -> Select[AuditRecord]:
    """A tenant's records, newest first."""
    statement = select(AuditRecord).where(AuditRecord.tenant_id == tenant_id)
    if before is not None:
        statement = statement.where(AuditRecord.id < before)
    return statement.order_by(AuditRecord.id.desc()).limit(limit)


def forget_audit() -> Delete:
    """Drop the records that have expired; the database refuses to drop others."""
    return delete(AuditRecord).where(AuditRecord.expires_at < func.now())
