"""What the service answers, as typed objects.

The service may grow: fields this version does not know are kept (`model_extra`), and names it does
not know, such as a new job state, never break parsing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr


class JobState(StrEnum):
    """The states of a job; UNKNOWN stands for a state that is newer than this client."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"

    @classmethod
    def of(cls, name: object) -> JobState:
        """The state called `name`, or UNKNOWN."""
        return cls.__members__.get(name, cls.UNKNOWN) if isinstance(name, str) else cls.UNKNOWN

    @property
    def is_terminal(self) -> bool:
        """Whether a job in this state never changes again."""
        return self in _TERMINAL


_TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


class Wire(BaseModel):
    """Base of all answers: tolerant of fields that are not declared here."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)


class Progress(Wire):
    """How far a job is; `rate` is units a second, `eta_seconds` a linear extrapolation."""

    phase: str
    current: int
    total: int
    unit: str = ""
    rate: float | None = None
    eta_seconds: float | None = None


class JobError(Wire):
    """Why a job ended without a result; branch on `code`, show `message`."""

    code: str
    message: str
    origin: str = "system"
    retryable: bool = False
    details: dict[str, Any] = Field(default_factory=dict)


class JobCache(Wire):
    """Where a result comes from when the same job was submitted before.

    `hit_of` is the job that made the result, if it was another one; `waits_for` the unfinished job
    whose result this one will take over.
    """

    key: str = ""
    hit_of: str | None = None
    waits_for: str | None = None


class ChildCounts(Wire):
    """The parts of a job that run as jobs of their own, by state."""

    total: int
    queued: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class JobRecord(Wire):
    """A job as the service tells it.

    Jobs from a list carry no `spec`, `result_data`, `preview`, `children` and `provenance`;
    `refresh()` fills them in.
    """

    id: str
    type: str
    type_version: str = ""
    raw_state: str = Field(alias="state")
    labels: dict[str, str] = Field(default_factory=dict)
    priority: int = 0
    attempt: int = 0
    max_attempts: int = 1
    timeout_seconds: float | None = None
    progress: Progress | None = None
    metrics_now: dict[str, dict[str, Any]] | None = Field(None, alias="metrics")
    headline: list[dict[str, Any]] | None = None
    error: JobError | None = None
    created_at: AwareDatetime
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    waiting_for: list[str] | None = None
    retry_of: str | None = None
    cache: JobCache | None = None
    version: int = 0
    links: dict[str, str] = Field(default_factory=dict)
    spec: dict[str, Any] | None = None
    result_data: dict[str, Any] | None = Field(None, alias="result")
    preview: dict[str, Any] | None = None
    children: ChildCounts | None = None
    provenance: dict[str, Any] | None = None

    _etag: str | None = PrivateAttr(None)

    @property
    def state(self) -> JobState:
        """The state; `raw_state` is the name that the service sent."""
        return JobState.of(self.raw_state)

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended, also in a state that this client does not know."""
        return self.state.is_terminal or self.finished_at is not None

    @property
    def succeeded(self) -> bool:
        """Whether the job has a result."""
        return self.state is JobState.SUCCEEDED

    def _absorb(self, newer: Self) -> None:
        for name in type(self).model_fields:
            setattr(self, name, getattr(newer, name))
        self.__pydantic_extra__ = newer.model_extra
        self._etag = newer._etag


class Event(Wire):
    """One line of a job's history; `seq` is the job's version at that moment.

    `kind` is "state", "waiting", "progress", "preview", "metric" or "log".
    """

    seq: int
    kind: str
    created_at: AwareDatetime
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def ends_job(self) -> bool:
        """Whether no event can follow."""
        return self.kind == "state" and JobState.of(self.data.get("state")).is_terminal


class MetricSeries(Wire):
    """A figure over time; values are None where they were not finite."""

    name: str
    steps: list[int]
    values: list[float | None]


class Metrics(Wire):
    """The curves of a job as far as they are known."""

    series: list[MetricSeries]
    last_seq: int = 0

    def __getitem__(self, name: str) -> MetricSeries:
        """The curve called `name`. Raises KeyError."""
        return {series.name: series for series in self.series}[name]


class ReportLink(Wire):
    """A path that shows a report without a key until it expires."""

    path: str
    expires_at: AwareDatetime


class Model(Wire):
    """A model that specs may name; `runs` is "worker" or "server"."""

    name: str
    runs: str = ""
    revision: str | None = None
    dtype: str | None = None


class Attempt(Wire):
    """One start of a job."""

    number: int
    worker: str
    started_at: AwareDatetime
    ended_at: AwareDatetime | None = None
    outcome: str | None = None
    error: JobError | None = None


class ArtifactRef(Wire):
    """What identifies the bytes of an artifact."""

    id: str
    name: str
    media_type: str = "application/octet-stream"
    size: int
    sha256: str


class ArtifactRecord(ArtifactRef):
    """Bytes that a job produced."""

    created_at: AwareDatetime | None = None


class File(Wire):
    """An uploaded input; `sha256` is lower-case hexadecimal, `size` in bytes."""

    id: str
    name: str
    media_type: str
    size: int
    sha256: str
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None


class Quota(Wire):
    """One of the things that a tenant may take up: queued_jobs, running_jobs, stored_bytes."""

    what: str
    used: int
    limit: int


class Usage(Wire):
    """What a tenant takes up."""

    quotas: list[Quota]

    def __getitem__(self, what: str) -> Quota:
        """The quota called `what`. Raises KeyError."""
        return {quota.what: quota for quota in self.quotas}[what]


class ApiKey(Wire):
    """An API key; of the token only the beginning is known."""

    id: str
    name: str
    hint: str = ""
    scopes: list[str]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    revoked_at: AwareDatetime | None = None
    last_used_at: AwareDatetime | None = None
    created_by: str | None = None


class NewApiKey(ApiKey):
    """An API key with its token, which the service shows this once."""

    token: str = Field(repr=False)


class Me(Wire):
    """Whose key it is."""

    tenant_id: str
    tenant: str
    key: ApiKey


class AuditRecord(Wire):
    """One change; `before` and `after` are SHA-256 of the object, `key_id` None: the operator."""

    id: int
    created_at: AwareDatetime
    expires_at: AwareDatetime
    key_id: str | None = None
    action: str
    object_id: str
    before: str | None = None
    after: str | None = None
    address: str | None = None
    request_id: str | None = None


class PrivacyRelease(Wire):
    """A differentially private target that a job published; the `rho` of one data set add up."""

    id: int
    created_at: AwareDatetime
    job_id: str
    data_set: str
    rho: float


class WebhookEndpoint(Wire):
    """A URL that is notified when jobs end; `secret` is there once, right after it was made."""

    id: str
    url: str
    events: list[str] = Field(default_factory=list)
    description: str = ""
    state: str
    disabled_reason: str | None = None
    failing_since: AwareDatetime | None = None
    old_until: AwareDatetime | None = None
    created_at: AwareDatetime
    secret: str | None = Field(None, repr=False)


class WebhookDelivery(Wire):
    """A message to an endpoint; `id` is its `webhook-id`, `due_at` that of the next attempt."""

    id: str
    endpoint_id: str
    job_id: str | None = None
    type: str
    state: str
    attempts: int = 0
    status_code: int | None = None
    error: str | None = None
    created_at: AwareDatetime
    last_attempt_at: AwareDatetime | None = None
    due_at: AwareDatetime | None = None


class WebhookMessage(Wire):
    """What a receiver gets: `type` such as "job.succeeded", and `data` with the job's id."""

    type: str
    timestamp: AwareDatetime
    data: dict[str, Any] = Field(default_factory=dict)


class JobType(Wire):
    """What the service can do; the schemas and the example are None in lists."""

    name: str
    version: str
    title: str = ""
    summary: str = ""
    paper: str = ""
    resource: str = ""
    timeout_seconds: float | None = None
    max_timeout_seconds: float | None = None
    deterministic: bool = False
    spec_schema: dict[str, Any] | None = None
    result_schema: dict[str, Any] | None = None
    example: dict[str, Any] | None = None


class Readiness(Wire):
    """Whether the service can serve: "ready", "degraded" (still serves) or "unavailable"."""

    status: str
    database: str = ""
    schema_revision: str = ""
    broker: str = ""

    @property
    def serves(self) -> bool:
        """Whether requests will be answered."""
        return self.status in {"ready", "degraded"}


class FieldError(Wire):
    """One fault of a request; `pointer` is a JSON pointer into its body."""

    pointer: str
    message: str


class Problem(Wire):
    """RFC 9457 problem details."""

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str = ""
    code: str = ""
    instance: str | None = None
    request_id: str | None = None
    retryable: bool = False
    errors: list[FieldError] = Field(default_factory=list)
    job_error: JobError | None = None
    quota: Quota | None = None
