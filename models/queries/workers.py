"""Workers that are alive, and what they can run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Delete, delete, func
from sqlalchemy.dialects.postgresql import insert as upsert

from models.tables import Worker


def announce(name: str, resources: Sequence[str], missing: Mapping[str, Sequence[str]]) -> Any:
    """Note that a worker is alive, and what it lacks for each job type that it has."""
    row = {"resources": list(resources), "missing": {k: list(v) for k, v in missing.items()}}
    return (
        upsert(Worker)
        .values(name=name, **row)
        .on_conflict_do_update(index_elements=["name"], set_={**row, "seen_at": func.now()})
    )


def forget_dead(older_than: timedelta) -> Delete:
    """Drop workers that were not heard of for long."""
    return delete(Worker).where(Worker.seen_at < func.now() - older_than)
