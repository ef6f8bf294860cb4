"""What goes over the wire, beside the specs and results that the job types declare themselves."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from infra.api_keys import SCOPES
from models.states import JobState

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")

_SURROGATE = re.compile("[\ud800-\udfff]")

LabelKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,63}$")]
LabelValue = Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")]


#: Of a body: the spec, and sixteen levels in it.
MAX_DEPTH = 17


def plain(body: Any) -> Any:
    """The same body, when it is neither too deep nor has keys that UTF-8 cannot write.

    Raises:
        ValueError: it is.
    """
    level, depth = [body], 0
    while level := [value for value in level if isinstance(value, (dict, list))]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"the spec is nested deeper than {MAX_DEPTH - 1} levels")
        below: list[Any] = []
        for value in level:
            below += value.values() if isinstance(value, dict) else value
            if isinstance(value, dict) and _SURROGATE.search("".join(map(str, value))):
                raise ValueError("a key contains half a surrogate pair")
        level = below
    return body


class Wire(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(from_attributes=True)


class JobCreate(BaseModel, Generic[S]):
    """Everything a client says when it asks for a job; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, body: Any) -> Any:
        return plain(body)

    spec: S
    labels: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=16, description="Your own key-value pairs, for filters."
    )
    priority: int = Field(0, ge=-100, le=100, description="Higher runs first among your own jobs.")
    max_attempts: int = Field(
        3, ge=1, le=10, description="How often a job may start when workers die under it."
    )
    timeout_seconds: float | None = Field(
        None, gt=0, le=604800, description="Limit of one attempt; default: the job type's."
    )
    queue_timeout_seconds: float | None = Field(
        None,
        gt=0,
        le=2592000,
        description="Give up (EXPIRED) when no worker took the job within this time.",
    )
    expires_after_seconds: float = Field(
        timedelta(days=30).total_seconds(),
        ge=3600,
        le=timedelta(days=90).total_seconds(),
        description="Job, result and artifacts are kept for this long after the job ended.",
    )
    cache: Literal["use", "refresh", "off"] = Field(
        "use",
        description="Whether an earlier result may be used. `use`: for a deterministic job "
        "type, the result of an earlier job of yours with the same spec, inputs and models is "
        "taken over, and `cache.hit_of` says whose it is. `refresh`: run anyway, and let later "
        "jobs have the result. `off`: neither.",
    )


class JobCache(Wire):
    """Where a result comes from when the same job was submitted before."""

    key: str = Field(description="Equal keys mean equal results (hexadecimal SHA-256).")
    hit_of: str | None = Field(description="The job that made the result, if it was another one.")
    waits_for: str | None = Field(
        description="The unfinished job with the same key whose result this one will take over."
    )


class Progress(Wire):
    """How far a job is; `rate` is units a second, `eta_seconds` a linear extrapolation."""

    phase: str
    current: int
    total: int
    unit: str
    rate: float | None = None
    eta_seconds: float | None = None


class JobFailure(Wire):
    """Why a job ended without a result."""

    code: str = Field(description="Stable; branch on it.", examples=["input_invalid"])
    message: str = Field(description="One sentence for a person.")
    origin: Literal["user", "system"]
    retryable: bool
    details: dict[str, Any] = Field(default_factory=dict)


class Links(Wire):
    """Where to go from here; `retry` and `cancel` are POSTed to."""

    self: str
    result: str
    events: str
    attempts: str
    artifacts: str
    metrics: str
    report: str
    cancel: str
    retry: str


class HeadlineFigure(Wire):
    """One of the few figures that a job was run for."""

    key: str = Field(
        description="Name for `sort` and `headline` of a list.", examples=["auroc", "selected"]
    )
    label: str = Field(description="What the figure is, for people.")
    value: float | int | str | None = Field(description="Null where it is undefined.")
    low: float | None = Field(None, description="Lower end of its interval.")
    high: float | None = Field(None, description="Upper end of its interval.")
    unit: str | None = Field(None, description="Unit of the figure.")
    format: str = Field("number", description="`text`, `number`, `integer`, `percent`, ...")
    better: Literal["high", "low"] | None = Field(None, description="Which direction is good.")
    help: str = Field("", description="How to read the figure.")


class MetricPoint(Wire):
    """The newest point of a figure over time."""

    step: int
    value: float | None = Field(description="Null where it was not finite.")


class JobSummary(Wire):
    """A job as lists show it."""

    id: str = Field(examples=["job_019a3c5e7d1f7a2b8c4d5e6f70819203"])
    type: str
    type_version: str
    state: JobState
    labels: dict[str, str]
    priority: int
    attempt: int = Field(description="How often the job was started so far.")
    max_attempts: int
    timeout_seconds: float
    progress: Progress | None
    metrics: dict[str, MetricPoint] | None = Field(
        description="The newest point of each figure over time; null where there are none."
    )
    headline: list[HeadlineFigure] | None = Field(
        description="The figures that the job was run for; null until it has succeeded."
    )
    error: JobFailure | None
    created_at: AwareDatetime
    started_at: AwareDatetime | None = Field(description="Start of the newest attempt.")
    finished_at: AwareDatetime | None
    expires_at: AwareDatetime | None = Field(description="When job and data are purged.")
    waiting_for: list[str] | None = Field(
        description="Why a queued job does not start, where no live worker can run it: modules "
        "that the workers lack, such as `torch`, or the kind of worker that is missing."
    )
    retry_of: str | None
    cache: JobCache | None = Field(description="null: the result depends on more than the spec.")
    version: int = Field(
        description="Grows with every change of the job itself; the ETag is made of it and of "
        "`children`."
    )
    links: Links


class ChildCounts(Wire):
    """The parts of a job that run as jobs of their own, by state; some may be shared."""

    total: int
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int


class Job(JobSummary):
    """A job in full."""

    spec: dict[str, Any] = Field(description="The spec as accepted, defaults filled in.")
    result: dict[str, Any] | None = Field(
        description="The result, as the job type's result schema has it; null until the job has "
        "succeeded."
    )
    preview: dict[str, Any] | None = Field(
        description="What is known of the result before it is there; null where the job type "
        "shows nothing, and once there is a result."
    )
    children: ChildCounts | None = Field(
        None, description="Null where the job has no parts. `GET /v1/jobs?parent=` lists them."
    )
    provenance: dict[str, Any] | None


class Event(Wire):
    """One line of a job's history; `seq` is the job's version at that moment."""

    seq: int
    kind: Literal["state", "waiting", "progress", "preview", "metric", "log"] = Field(
        description="`preview`: the job's preview has changed; `waiting`: no live worker can run "
        "it, or one can again; `metric`: `data.points` has points of curves."
    )
    created_at: AwareDatetime
    data: dict[str, Any]


class MetricSeries(Wire):
    """A figure over time."""

    name: str = Field(description="The figure, such as `loss`.")
    steps: list[int] = Field(description="Ascending.")
    values: list[float | None] = Field(description="One a step; null where it was not finite.")


class Metrics(Wire):
    """The curves of a job as far as they are known."""

    series: list[MetricSeries] = Field(description="The curves, ordered by their names.")
    last_seq: int = Field(
        description="The newest event with points; as `after` it leaves out what was read."
    )


class Attempt(Wire):
    """One start of a job."""

    number: int
    worker: str
    started_at: AwareDatetime
    ended_at: AwareDatetime | None
    outcome: str | None
    error: JobFailure | None


class Artifact(Wire):
    """Bytes that a job produced."""

    id: str
    name: str
    media_type: str
    size: int
    sha256: str
    created_at: AwareDatetime
    content: str = Field(description="Path of the bytes.")


class File(Wire):
    """An uploaded input."""

    id: str = Field(examples=["file_019a3c5e7d1f7a2b8c4d5e6f70819203"])
    name: str
    media_type: str
    size: int = Field(description="Bytes.")
    sha256: str = Field(description="Lower-case hexadecimal.")
    created_at: AwareDatetime
    expires_at: AwareDatetime = Field(description="Purged then, unless a job uses it before.")


class Quota(Wire):
    """One of the things that a tenant may take up."""

    what: Literal["queued_jobs", "running_jobs", "stored_bytes"]
    used: int
    limit: int


class Usage(Wire):
    """What a tenant takes up and may take up. More running jobs than the limit wait queued."""

    quotas: list[Quota]


Scope = Literal[SCOPES]  # type: ignore[valid-type]


class ApiKeyCreate(BaseModel):
    """What a new API key shall be called and be able to do."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]*$")]
    scopes: list[Scope] = Field(min_length=1, max_length=len(SCOPES))
    expires_in_seconds: float | None = Field(
        None, gt=0, le=timedelta(days=3650).total_seconds(), description="null: it does not expire."
    )


class ApiKey(Wire):
    """An API key; of the token itself only the beginning is known."""

    id: str = Field(examples=["key_019a3c5e7d1f7a2b8c4d5e6f70819203"])
    name: str
    hint: str
    scopes: list[str]
    created_at: AwareDatetime
    expires_at: AwareDatetime | None
    revoked_at: AwareDatetime | None
    last_used_at: AwareDatetime | None = Field(
        description="Time of the last request with this key, to the minute; null before the first."
    )
    created_by: str | None = Field(description="The key that made it; null: the operator.")


class NewApiKey(ApiKey):
    """An API key with its token, which is shown this once."""

    token: str


class Me(Wire):
    """Who is asking."""

    tenant_id: str
    tenant: str
    key: ApiKey


class AuditRecord(Wire):
    """One change: who, what, to which object, from where."""

    id: int
    created_at: AwareDatetime
    expires_at: AwareDatetime
    key_id: str | None = Field(description="null: the operator, at the command line.")
    action: str = Field(examples=["job.create"])
    object_id: str
    before: str | None = Field(description="SHA-256 of the object as it was.")
    after: str | None = Field(description="SHA-256 of the object as it became.")
    address: str | None
    request_id: str | None


class Page(Wire, Generic[T]):
    """One page of a list; pass `next_cursor` as `cursor` to go on."""

    items: list[T]
    next_cursor: str | None = None


class JobTypeSummary(Wire):
    """A job type as the registry declares it."""

    name: str
    version: str
    title: str
    summary: str
    paper: str
    resource: Literal["cpu", "gpu", "llm"]
    timeout_seconds: float
    max_timeout_seconds: float
    deterministic: bool


class JobTypeDetail(JobTypeSummary):
    """A job type with the JSON Schemas (2020-12) of its spec and result, and a spec that works."""

    spec_schema: dict[str, Any]
    result_schema: dict[str, Any]
    example: dict[str, Any]


class Model(Wire):
    """A model that specs may name."""

    name: str = Field(description="Name for fields of the format `datassay-model`.")
    runs: Literal["worker", "server"] = Field(
        description="`worker`: a worker loads its weights; `server`: an OpenAI-compatible server "
        "has it, which samples and judges but gives no representations."
    )
    revision: str | None = Field(description="Commit or branch of the weights, where one is fixed.")
    dtype: str | None = Field(description="Number format of the weights; null for servers.")


class Readiness(Wire):
    """Whether this process can serve; `degraded` still serves."""

    status: Literal["ready", "degraded", "unavailable"] = Field(
        description="`degraded`: jobs are accepted, but start only when a worker looks for itself."
    )
    database: str
    schema_revision: str
    broker: str


class FieldError(Wire):
    """One fault of a request."""

    pointer: str = Field(description="JSON pointer into the body.", examples=["/spec/items/0/id"])
    message: str


class Problem(Wire):
    """RFC 9457 problem details."""

    type: str = Field(examples=["/problems/invalid-spec"])
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    request_id: str | None = None
    retryable: bool = False
    errors: list[FieldError] = Field(default_factory=list)
    job_error: JobFailure | None = None
    quota: Quota | None = None


class ProblemType(Wire):
    """What a problem type means."""

    code: str
    title: str
    status: int
    retryable: bool
    description: str
