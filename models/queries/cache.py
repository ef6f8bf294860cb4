"""Results that later jobs take over, and what methods remember for later jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Delete, Select, Update, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from models.states import JobState
from models.tables import CacheEntry, Job


def in_flight_duplicate(tenant_id: str, key: bytes, priority: int) -> Select[str]:
    """An unfinished job whose result will be that of a job with this cache key."""
    return (
        select(Job.id)
        .where(
            Job.tenant_id == tenant_id,
            Job.cache_key == key,
            Job.cache_key.is_not(None),
            Job.deleted_at.is_(None),
            Job.waits_for.is_(None),
            # An urgent job does not wait for a leisurely one that nobody has started.
            or_(
                Job.state == JobState.RUNNING,
                and_(Job.state == JobState.QUEUED, Job.priority >= priority),
            ),
        )
        .order_by(Job.id)
        .limit(1)
    )


def get(tenant_id: str, keys: Sequence[bytes]) -> Select[bytes, bytes]:
    """The entries that are there."""
    mine = and_(CacheEntry.tenant_id == tenant_id, CacheEntry.key.in_(keys))
    return select(CacheEntry.key, CacheEntry.value).where(mine)


def touch(tenant_id: str, keys: Sequence[bytes]) -> Update:
    """Note that entries are in use, once an hour."""
    return (
        update(CacheEntry)
        .where(CacheEntry.tenant_id == tenant_id, CacheEntry.key.in_(keys))
        .where(CacheEntry.used_at < func.now() - timedelta(hours=1))
        .values(used_at=func.now())
    )


def put(tenant_id: str, entries: Mapping[bytes, bytes]) -> Any:
    """Add entries; what is there stays."""
    # In the order of the keys: two writers of the same ones do not lock each other out.
    rows = [{"tenant_id": tenant_id, "key": k, "value": v} for k, v in sorted(entries.items())]
    return upsert(CacheEntry).values(rows).on_conflict_do_nothing()


def trim(keep: int) -> Delete:
    """Drop what was used longest ago beyond so many entries of all tenants."""
    oldest = (
        select(CacheEntry.used_at).order_by(CacheEntry.used_at.desc()).offset(keep).limit(1)
    ).scalar_subquery()
    return delete(CacheEntry).where(CacheEntry.used_at <= oldest)
