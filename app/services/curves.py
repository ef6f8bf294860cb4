"""The curves of a job: what it reported over time, out of its events."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from models import queries

#: Values by name and step; null where one was not finite.
Curves = dict[str, dict[int, float | None]]


async def read_curves(
    session: AsyncSession, tenant_id: str, job_id: str, after: int = 0
) -> tuple[Curves, int]:
    """Points of events after `seq`, by name and step in ascending order, and the last event's
    `seq`."""
    statement = queries.jobs.metrics(tenant_id, job_id, after)
    events = (await session.execute(statement)).scalars().all()
    found: Curves = {}
    for event in events:
        for point in event.data["points"]:
            # A later attempt that did a step again is right.
            found.setdefault(point["name"], {})[point["step"]] = point["value"]
    curves = {name: dict(sorted(curve.items())) for name, curve in sorted(found.items())}
    return curves, events[-1].seq if events else after
