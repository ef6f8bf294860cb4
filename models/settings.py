"""Every knob of the service, read from the environment (`DATASSAY_...`) once per process."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

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
        description="Models that jobs may name; see methods/inference/declared.py for the fields: "
        '{"gemma": {"base_url": "http://localhost:8000/v1"}, "minilm": {"path": "/models/minilm"}}',
    )
    loaded_models: int = Field(2, ge=1, description="How many a worker keeps in memory.")

    # The lease outlives several heartbeats: a long C call may hold the GIL for a while.
    lease: timedelta = timedelta(seconds=90)
    heartbeat: timedelta = timedelta(seconds=15)
    progress_interval: timedelta = timedelta(milliseconds=500)
    shutdown_grace: timedelta = timedelta(seconds=20)
    retry_backoff: timedelta = timedelta(seconds=2)

    sweep_interval: timedelta = timedelta(seconds=1)
    ring_again_after: timedelta = timedelta(seconds=30)

    # A thousand inline items with ten answers each have about 2 MiB.
    max_body_bytes: int = 8 * MIB
    max_file_bytes: int = 5 * GIB
    max_result_bytes: int = 4 * MIB
    max_wait: timedelta = timedelta(seconds=55)
    idempotency_retention: timedelta = timedelta(hours=24)
    file_retention: timedelta = timedelta(days=30)
    # Bytes may be older than their row by as long as an upload's last step takes.
    orphan_retention: timedelta = timedelta(hours=24)
    isolated_memory_bytes: int | None = Field(
        None, description="Address-space limit of jobs that run in a process of their own."
    )

    database_pool: int = 10
    database_connect_timeout: timedelta = timedelta(seconds=3)
    statement_timeout: timedelta = timedelta(seconds=10)
    log_json: bool = True
    log_level: str = "INFO"

    @model_validator(mode="after")
    def _lease_outlives_heartbeats(self) -> Self:
        if self.lease < 3 * self.heartbeat:
            raise ValueError("DATASSAY_LEASE must be at least three times DATASSAY_HEARTBEAT")
        return self

    def require_secret(self) -> bytes:
        """The HMAC key. Raises ValueError when it is missing or short."""
        value = self.secret.get_secret_value()
        if len(value) < 32:
            raise ValueError("DATASSAY_SECRET must be set to at least 32 random characters")
        return value.encode()
