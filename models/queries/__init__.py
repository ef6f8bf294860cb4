"""All reads, and the writes that change no job's state: a module for each thing that is read.

Functions return statements; the caller's session (async or sync) executes them. A statement that
takes `tenant_id` never sees another tenant's rows. Use them as `queries.jobs.get(...)`.
"""

from models.queries import (
    accounts,
    artifacts,
    cache,
    children,
    files,
    idempotency,
    integrity,
    jobs,
    releases,
    webhook_deliveries,
    webhooks,
    workers,
)

__all__ = [
    "accounts",
    "artifacts",
    "cache",
    "children",
    "files",
    "idempotency",
    "integrity",
    "jobs",
    "releases",
    "webhook_deliveries",
    "webhooks",
    "workers",
]
