"""Every knob of the service, read from the environment (`DATASSAY_...`) once per process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.outbound_settings import Credential, PrivateHost, Source

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Settings(BaseSettings):
    """Settings shared by gateway, worker and sweeper; library code gets them passed in."""

    model_config = SettingsConfigDict(env_prefix="DATASSAY_", extra="ignore")

    database_url: SecretStr = Field(
        SecretStr("postgresql://datassay@localhost/datassay"),
        description="Postgres 15 or newer; any libpq URL.",
    )
    broker_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/0"),
        description="Redis or Valkey: redis://, rediss:// or redis+socket://.",
    )
    storage_url: str = Field(
        "file://./.datassay/storage",
        description="Where inputs and artifacts lie: a folder or any fsspec URL such as s3://b/p.",
    )
    secret: SecretStr = Field(
        SecretStr(""),
        description="Key of the HMAC over API keys; at least 32 characters.",
    )
    extra_methods: list[Path] = Field(
        default_factory=list, description="Folders with further method folders."
    )
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Models that jobs may name; methods/inference/model_registry.py has the "
        'fields: {"gemma": {"base_url": "http://localhost:8000/v1"}, "minilm": {"path": "/m"}}',
    )
    outbound_allow: list[PrivateHost] = Field(
        default_factory=list,
        description="Private hosts, host:port or networks that inputs and webhooks may reach, "
        "over plain http and any port too.",
    )
    input_sources: list[Source] = Field(
        default_factory=list,
        description="Where inputs by URI may come from, and for which tenants: "
        '[{"prefix": "s3://sets/acme/", "tenants": ["acme"], "credential": "lake"}].',
    )
    credentials: dict[str, Credential] = Field(
        default_factory=dict,
        description='What sources are shown: {"lake": {"options": {"key": "...", "secret": "..."}}}'
        ' or {"web": {"headers": {"Authorization": "Bearer ..."}}}.',
    )
    input_timeout: timedelta = timedelta(minutes=30)
    standalone: bool = Field(False, description="Set by `datassay-server up`, by nobody else.")
    input_root: Path | None = Field(
        None, description="Folder below which file:// inputs lie; `up --input-root` sets it."
    )
    loaded_models: int = Field(2, ge=1, description="How many a worker keeps in memory.")

    # The lease outlives several heartbeats: a long C call may hold the GIL for a while.
    lease: timedelta = timedelta(seconds=90)
    heartbeat: timedelta = timedelta(seconds=15)
    progress_interval: timedelta = timedelta(milliseconds=500)
    shutdown_grace: timedelta = timedelta(seconds=20)
    retry_backoff: timedelta = timedelta(seconds=2)

    sweep_interval: timedelta = timedelta(seconds=1)
    redispatch_after: timedelta = timedelta(seconds=30)

    # A thousand inline items with ten answers each have about 2 MiB.
    max_body_bytes: int = 8 * MIB
    max_file_bytes: int = 5 * GIB
    max_result_bytes: int = 4 * MIB
    max_wait: timedelta = timedelta(seconds=55)
    idempotency_retention: timedelta = timedelta(hours=24)
    file_retention: timedelta = timedelta(days=30)
    audit_retention: timedelta = timedelta(days=400)
    delivery_retention: timedelta = timedelta(days=30)
    cache_entries: int = 1_000_000
    # Bytes may be older than their row by as long as an upload's last step takes.
    orphan_retention: timedelta = timedelta(hours=24)
    isolated_memory_bytes: int | None = Field(
        None, description="Address-space limit of jobs that run in a process of their own."
    )

    # What a tenant may take up; `datassay-server tenants limit` sets other numbers for one tenant.
    quota_queued_jobs: int = Field(10_000, ge=0)
    quota_running_jobs: int = Field(1_000, ge=0)
    quota_stored_bytes: int = Field(100 * GIB, ge=0)
    # Token buckets, refilled evenly over the minute; 0 turns one off.
    rate_key: int = Field(6_000, ge=0, description="Requests a minute with one API key.")
    rate_tenant: int = Field(12_000, ge=0, description="Requests a minute of one tenant.")
    rate_submit: int = Field(1_200, ge=0, description="New jobs and uploads a minute of a tenant.")
    rate_address: int = Field(600, ge=0, description="Requests a minute without a valid key.")
    rate_patience: timedelta = Field(
        timedelta(seconds=1), description="How long the broker may take to count a request."
    )

    database_pool: int = 10
    database_connect_timeout: timedelta = timedelta(seconds=3)
    statement_timeout: timedelta = timedelta(seconds=10)
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Prometheus metrics of this process; none: not served."
    )
    metrics_host: str = "127.0.0.1"
    metrics_interval: timedelta = timedelta(seconds=10)
    log_json: bool = True
    log_level: str = "INFO"

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease < 3 * self.heartbeat:
            raise ValueError("DATASSAY_LEASE must be at least three times DATASSAY_HEARTBEAT")
        return self

    @model_validator(mode="after")
    def _input_root_is_local(self) -> Self:
        if self.input_root is not None and not self.standalone:
            raise ValueError("DATASSAY_INPUT_ROOT is for `datassay-server up` only")
        return self

    def require_secret(self) -> bytes:
        """The HMAC key. Raises ValueError when it is missing or short."""
        value = self.secret.get_secret_value()
        if len(value) < 32:
            raise ValueError("DATASSAY_SECRET must be set to at least 32 random characters")
        return value.encode()
