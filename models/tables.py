"""The tables. `migrations/` creates them; a test checks that the two agree."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from models.states import JobState

_TERMINAL = "state IN ('SUCCEEDED', 'FAILED', 'CANCELLED', 'EXPIRED')"
_LEASED = "state IN ('RUNNING', 'CANCELLING')"
_OCCUPIES = "state IN ('QUEUED', 'RUNNING', 'CANCELLING', 'SUCCEEDED') AND deleted_at IS NULL"


class Base(DeclarativeBase):
    """Naming conventions make every constraint addressable in migrations."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        str: Text,
        datetime: DateTime(timezone=True),
        # JSON, not JSONB: what was accepted comes back as it was, order and all.
        dict[str, Any]: JSON(none_as_null=True),
    }


class Tenant(Base):
    """Who owns jobs, files and keys."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Turns go round: the tenant that was served longest ago is next.
    last_claim_at: Mapped[datetime | None]
    # Quotas; where there is no number, the settings' holds.
    max_queued_jobs: Mapped[int | None]
    max_running_jobs: Mapped[int | None]
    max_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    # Kept by triggers on files and artifacts.
    stored_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")

    __table_args__ = (Index("ix_tenants_turn", text("last_claim_at NULLS FIRST"), "id"),)


class ApiKey(Base):
    """A key is stored as HMAC-SHA256 only."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    hint: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    created_by: Mapped[str | None]


class AuditRecord(Base):
    """Who changed what; a trigger refuses updates, and deletion before `expires_at`."""

    __tablename__ = "audit_records"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    # None: the operator, at the command line.
    key_id: Mapped[str | None]
    action: Mapped[str]
    object_id: Mapped[str]
    # SHA-256 of the object as it was and as it is.
    before: Mapped[str | None]
    after: Mapped[str | None]
    address: Mapped[str | None]
    request_id: Mapped[str | None]

    __table_args__ = (Index("ix_audit_records_list", "tenant_id", text("id DESC")),)


class Job(Base):
    """A job; only `models/transitions` writes `state`."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    type: Mapped[str]
    type_version: Mapped[str]
    resource: Mapped[str]
    state: Mapped[JobState] = mapped_column(
        Enum(JobState, native_enum=False, length=16, create_constraint=True, name="state")
    )
    spec: Mapped[dict[str, Any]]
    # [{"pointer": "/spec/input", "id": "file_...", "sha256": "..."}]
    inputs: Mapped[list[dict[str, str]]] = mapped_column(JSONB, server_default=text("'[]'"))
    labels: Mapped[dict[str, str]] = mapped_column(JSONB, server_default=text("'{}'"))
    priority: Mapped[int] = mapped_column(server_default="0")
    # Claim order within a priority: a job's own id; that of a child begins with its parent's.
    turn: Mapped[str] = mapped_column(Text(collation="C"))
    # Of children only: a digest of all that determines the result.
    content_key: Mapped[str | None]
    timeout_seconds: Mapped[float] = mapped_column(Float)
    retention_seconds: Mapped[float] = mapped_column(Float)
    # `attempt` counts starts, `failures` those that count against `max_attempts`: a worker that
    # hands a job back on its shutdown has not failed.
    attempt: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int]
    version: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    not_before: Mapped[datetime] = mapped_column(server_default=func.now())
    queue_deadline: Mapped[datetime | None]
    rung_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    progress: Mapped[dict[str, Any] | None]
    # What the runner shows of its result before it is there.
    preview: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    # The newest point of each metric: {"loss": {"step": 7, "value": 0.5}}
    metrics: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    # The figures of the result that lists show and sort by: [{"key": "auroc", "value": 0.9, ...}]
    headline: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB(none_as_null=True))
    error: Mapped[dict[str, Any] | None]
    provenance: Mapped[dict[str, Any] | None]
    retry_of: Mapped[str | None]
    created_by: Mapped[str | None]
    # What the result depends on; jobs with the same key have the same result.
    cache_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    # The job that made result and artifacts, when it was not this one.
    hit_of: Mapped[str | None]
    # The unfinished equal job whose result this one waits for; no worker takes it meanwhile.
    waits_for: Mapped[str | None]
    # While queued: what no live worker of its class has, in words for its owner.
    waiting_for: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    # Set when the bytes of a deleted job are gone.
    purged_at: Mapped[datetime | None]
    # Of the request that made it, W3C trace context.
    traceparent: Mapped[str | None]

    __table_args__ = (
        CheckConstraint(f"({_LEASED}) = (lease_until IS NOT NULL)", "lease_only_while_running"),
        CheckConstraint(f"({_TERMINAL}) = (finished_at IS NOT NULL)", "finished_when_terminal"),
        CheckConstraint("result IS NULL OR state = 'SUCCEEDED'", "result_of_success"),
        CheckConstraint("error IS NULL OR state <> 'SUCCEEDED'", "no_error_of_success"),
        Index(
            "ix_jobs_list",
            "tenant_id",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("content_key IS NULL"),
        ),
        # One child for all parents of a tenant that need the same.
        Index(
            "uq_jobs_content_key",
            "tenant_id",
            "content_key",
            unique=True,
            postgresql_where=text(_OCCUPIES),
        ),
        Index(
            "ix_jobs_live_children",
            "id",
            postgresql_where=text("content_key IS NOT NULL AND state IN ('QUEUED', 'RUNNING')"),
        ),
        Index("ix_jobs_labels", "labels", postgresql_using="gin"),
        Index(
            "ix_jobs_queue",
            "tenant_id",
            "resource",
            text("priority DESC"),
            "turn",
            postgresql_where=text("state = 'QUEUED' AND waits_for IS NULL"),
        ),
        Index(
            "ix_jobs_unfinished", "tenant_id", "state", postgresql_where=text("finished_at IS NULL")
        ),
        Index(
            "ix_jobs_waiting",
            "waits_for",
            postgresql_where=text("waits_for IS NOT NULL AND finished_at IS NULL"),
        ),
        Index(
            "ix_jobs_cache",
            "tenant_id",
            "cache_key",
            postgresql_where=text("cache_key IS NOT NULL AND deleted_at IS NULL"),
        ),
        Index(
            "ix_jobs_hit_of",
            "hit_of",
            postgresql_where=text("hit_of IS NOT NULL AND deleted_at IS NULL"),
        ),
        Index(
            "ix_jobs_unpurged",
            "deleted_at",
            postgresql_where=text("deleted_at IS NOT NULL AND purged_at IS NULL"),
        ),
        Index("ix_jobs_lease", "lease_until", postgresql_where=text(_LEASED)),
        Index("ix_jobs_bell", "rung_at", postgresql_where=text("state = 'QUEUED'")),
        Index(
            "ix_jobs_queue_deadline",
            "queue_deadline",
            postgresql_where=text("state = 'QUEUED' AND queue_deadline IS NOT NULL"),
        ),
        Index("ix_jobs_expiry", "expires_at", postgresql_where=text("deleted_at IS NULL")),
    )


class Worker(Base):
    """A worker that was alive a moment ago, and what it can run."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    resources: Mapped[list[str]] = mapped_column(ARRAY(Text))
    # By job type that it has: the modules that it lacks; none where it can run it.
    missing: Mapped[dict[str, list[str]]] = mapped_column(JSONB)
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class JobChild(Base):
    """Which jobs a job waits for; several parents may share a child."""

    __tablename__ = "job_children"

    parent_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    child_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)
    # The parent's order: its own worker claims them by it.
    place: Mapped[int]
    # It was there before this parent asked for it.
    reused: Mapped[bool]


class JobEvent(Base):
    """A job's history, append-only: one row for every version of the job."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    kind: Mapped[str]
    data: Mapped[dict[str, Any]]
    terminal: Mapped[bool] = mapped_column(server_default=text("false"))

    __table_args__ = (
        Index(
            "uq_job_events_one_terminal", "job_id", unique=True, postgresql_where=text("terminal")
        ),
    )


class JobAttempt(Base):
    """One start of a job; never overwritten by the next."""

    __tablename__ = "job_attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    worker: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    # For operators only; never sent to a client.
    trace: Mapped[str | None]


class Checkpoint(Base):
    """What a runner wants to find again in a later attempt."""

    __tablename__ = "job_checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    value: Mapped[dict[str, Any]]
    # Set where the value is bytes in storage.
    storage_key: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index(
            "ix_job_checkpoints_stored",
            "job_id",
            postgresql_where=text("storage_key IS NOT NULL"),
        ),
    )


class CacheEntry(Base):
    """What costs much to compute and is the same for every job of a tenant; may vanish any time."""

    __tablename__ = "cache_entries"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    value: Mapped[bytes] = mapped_column(LargeBinary)
    used_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)

    # After a crash of the database it is empty, and writes cost half as much.
    __table_args__ = {"prefixes": ["UNLOGGED"]}  # noqa: RUF012 - SQLAlchemy reads it


class PrivacyRelease(Base):
    """A differentially private target that a job published; the ledger that releases add up in.

    Rows outlive their jobs: deleting a job takes back nothing that was published.
    """

    __tablename__ = "privacy_releases"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[str]
    # SHA-256 of the texts that it is of, and of what was published.
    data_set: Mapped[str]
    release: Mapped[str]
    # The zCDP parameter.
    rho: Mapped[float] = mapped_column(Float(53))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("job_id", "data_set", "release"),
        Index("ix_privacy_releases_owner", "tenant_id", "data_set"),
    )


class File(Base):
    """An uploaded input; `storage_key` is made of ids, never of the client's file name."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    media_type: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    storage_key: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_files_list", "tenant_id", text("created_at DESC"), text("id DESC")),
        Index("ix_files_last_used_at", "last_used_at"),
    )


class Artifact(Base):
    """Bytes of one attempt; they become visible when that attempt wins."""

    __tablename__ = "artifacts"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    attempt: Mapped[int]
    name: Mapped[str]
    media_type: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    storage_key: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_artifacts_job_id", "job_id", "attempt"),)


class WebhookEndpoint(Base):
    """Where a tenant wants to be told of its jobs; `infra/webhook_secrets.py` says what salts are.

    `failing_since` is the first failure after which nothing went well.
    """

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    url: Mapped[str]
    description: Mapped[str] = mapped_column(server_default="")
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    state: Mapped[str] = mapped_column(server_default="ACTIVE")
    disabled_reason: Mapped[str | None]
    salt: Mapped[str]
    old_salt: Mapped[str | None]
    old_until: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("state IN ('ACTIVE', 'DISABLED')", "state"),
        Index("ix_webhook_endpoints_list", "tenant_id", text("created_at DESC"), text("id DESC")),
    )


class WebhookDelivery(Base):
    """A message to an endpoint, written with the event that it tells of; `id` is its webhook-id."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    # No foreign key: deleting an endpoint must never make the statement fail that ends a job.
    endpoint_id: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), index=True)
    type: Mapped[str]
    # Text: the very bytes that are signed, the same for every attempt.
    payload: Mapped[str]
    state: Mapped[str] = mapped_column(server_default="PENDING")
    attempts: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    leased_until: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime | None]
    status_code: Mapped[int | None]
    error: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("state IN ('PENDING', 'DELIVERED', 'FAILED')", "state"),
        Index(
            "ix_webhook_deliveries_list", "endpoint_id", text("created_at DESC"), text("id DESC")
        ),
        Index(
            "ix_webhook_deliveries_due",
            "endpoint_id",
            "due_at",
            postgresql_where=text("state = 'PENDING'"),
        ),
    )


class IdempotencyKey(Base):
    """Which job a client's Idempotency-Key made, and for which request."""

    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_digest: Mapped[bytes] = mapped_column(LargeBinary)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
