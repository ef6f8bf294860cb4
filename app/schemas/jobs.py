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

    spec: S = Field(description="What the job is to do; its fields are those of the job type.")
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

    phase: str = Field(
        description="What the job is doing now, such as `sampling`; the words are the job type's."
    )
    current: int = Field(description="Units of this phase that are done.")
    total: int = Field(description="Units that this phase has.")
    unit: str = Field(description="What is counted, such as `items`.")
    rate: float | None = Field(
        None,
        description="Units a second since the phase began; null before there is a speed to tell.",
    )
    eta_seconds: float | None = Field(
        None, description="Seconds until the phase ends at this rate; null where there is no rate."
    )


class JobFailure(Wire):
    """Why a job ended without a result."""

    code: str = Field(description="Stable; branch on it.", examples=["input_invalid"])
    message: str = Field(description="One sentence for a person.")
    origin: Literal["user", "system"] = Field(
        description="Whose doing it is. `user`: the request, its inputs, a limit or a "
        "cancellation; `system`: the service, or what it depends on."
    )
    retryable: bool = Field(description="Whether the same request may succeed another time.")
    details: dict[str, Any] = Field(
        default_factory=dict,
        description="More for programs, such as the bad rows of a file; its keys depend on the "
        "code.",
    )


class Links(Wire):
    """Where to go from here; `retry` and `cancel` are POSTed to."""

    self: str = Field(description="Path of the job.")
    result: str = Field(description="Path of its bare result.")
    events: str = Field(description="Path of its history.")
    attempts: str = Field(description="Path of its starts.")
    artifacts: str = Field(description="Path of the list of its artifacts.")
    metrics: str = Field(description="Path of its figures over time.")
    report: str = Field(description="Path of its report, an HTML page.")
    cancel: str = Field(description="Path to POST to so that the job is cancelled.")
    retry: str = Field(description="Path to POST to so that the ended job is submitted again.")


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

    step: int = Field(description="Step that the point belongs to, as the job counts them.")
    value: float | None = Field(description="Null where it was not finite.")


class JobSummary(Wire):
    """A job as lists show it."""

    id: str = Field(examples=["job_019a3c5e7d1f7a2b8c4d5e6f70819203"], description="Id of the job.")
    type: str = Field(description="Job type, such as `score-hallucination`.")
    type_version: str = Field(description="Version of the job type when the job was submitted.")
    state: JobState = Field(
        description="State of the job; SUCCEEDED, FAILED, CANCELLED and EXPIRED are final."
    )
    labels: dict[str, str] = Field(description="Your own key-value pairs, as submitted.")
    priority: int = Field(description="Priority among your own jobs; higher runs first.")
    attempt: int = Field(description="How often the job was started so far.")
    max_attempts: int = Field(
        description="How often the job may be started; starts that a worker handed back on its "
        "shutdown do not count."
    )
    timeout_seconds: float = Field(description="Limit of one attempt in seconds.")
    progress: Progress | None = Field(
        description="How far the newest attempt has come, as it last said; null where it has not "
        "said so."
    )
    metrics: dict[str, MetricPoint] | None = Field(
        description="The newest point of each figure over time; null where there are none."
    )
    headline: list[HeadlineFigure] | None = Field(
        description="The figures that the job was run for; null until it has succeeded."
    )
    error: JobFailure | None = Field(
        description="Why the job ended without a result, or why the last attempt failed while it "
        "is tried again; null otherwise."
    )
    created_at: AwareDatetime = Field(description="When the job was submitted (UTC).")
    started_at: AwareDatetime | None = Field(description="Start of the newest attempt.")
    finished_at: AwareDatetime | None = Field(description="When the job ended (UTC); null before.")
    expires_at: AwareDatetime | None = Field(description="When job and data are purged.")
    waiting_for: list[str] | None = Field(
        description="Why a queued job does not start, where no live worker can run it: modules "
        "that the workers lack, such as `torch`, or the kind of worker that is missing."
    )
    retry_of: str | None = Field(
        description="Id of the job that this one repeats; null where it is not a retry."
    )
    cache: JobCache | None = Field(description="null: the result depends on more than the spec.")
    version: int = Field(
        description="Grows with every change of the job itself; the ETag is made of it and of "
        "`children`."
    )
    links: Links = Field(description="Paths that lead on from the job.")


class ChildCounts(Wire):
    """The parts of a job that run as jobs of their own, by state; some may be shared."""

    total: int = Field(description="Number of parts.")
    queued: int = Field(description="Parts that wait to start.")
    running: int = Field(description="Parts that run.")
    succeeded: int = Field(description="Parts that have a result.")
    failed: int = Field(
        description="Parts that ended without a result: failed, or expired in the queue."
    )
    cancelled: int = Field(description="Parts that were cancelled or are being stopped.")


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
    provenance: dict[str, Any] | None = Field(
        description="What the result was made with: versions of the service, the job type and "
        "Python, the worker, the inputs with their digests; null until the job has succeeded."
    )


class Event(Wire):
    """One line of a job's history; `seq` is the job's version at that moment."""

    seq: int = Field(
        description="Number of the event, ascending: the job's version at that moment."
    )
    kind: Literal["state", "waiting", "progress", "preview", "metric", "log"] = Field(
        description="`preview`: the job's preview has changed; `waiting`: no live worker can run "
        "it, or one can again; `metric`: `data.points` has points of curves."
    )
    created_at: AwareDatetime = Field(description="When it happened (UTC).")
    data: dict[str, Any] = Field(description="What happened; its keys depend on the kind.")


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

    number: int = Field(description="Which start of the job it is, from 1.")
    worker: str = Field(description="Name of the worker that ran it.")
    started_at: AwareDatetime = Field(description="When the attempt began (UTC).")
    ended_at: AwareDatetime | None = Field(
        description="When the attempt ended (UTC); null while it runs."
    )
    outcome: str | None = Field(
        description="`succeeded`; `failed`; `retried`: failed, and the job is tried again; "
        "`cancelled`; `released`: the worker shut down; `lost`: the worker stopped reporting. "
        "Null while it runs."
    )
    error: JobFailure | None = Field(description="Why the attempt failed; null where it did not.")


class Artifact(Wire):
    """Bytes that a job produced."""

    id: str = Field(description="Id of the artifact (`art_...`).")
    name: str = Field(description="File name.")
    media_type: str = Field(description="MIME type of the content.")
    size: int = Field(description="Length in bytes.")
    sha256: str = Field(description="SHA-256 of the content, in lower-case hexadecimal.")
    created_at: AwareDatetime = Field(description="When the artifact was stored (UTC).")
    content: str = Field(description="Path of the bytes.")


class File(Wire):
    """An uploaded input."""

    id: str = Field(
        examples=["file_019a3c5e7d1f7a2b8c4d5e6f70819203"],
        description="Id of the file; specs name it by this.",
    )
    name: str = Field(description="File name, as uploaded.")
    media_type: str = Field(description="MIME type, as uploaded.")
    size: int = Field(description="Bytes.")
    sha256: str = Field(description="Lower-case hexadecimal.")
    created_at: AwareDatetime = Field(description="When the file was uploaded (UTC).")
    expires_at: AwareDatetime = Field(description="Purged then, unless a job uses it before.")


class Quota(Wire):
    """One of the things that a tenant may take up."""

    what: Literal["queued_jobs", "running_jobs", "stored_bytes"] = Field(
        description="`queued_jobs`: jobs that wait; `running_jobs`: jobs that run; "
        "`stored_bytes`: bytes of files and artifacts."
    )
    used: int = Field(description="How much of it is taken up.")
    limit: int = Field(description="How much of it may be taken up.")


class Usage(Wire):
    """What a tenant takes up and may take up. More running jobs than the limit wait queued."""

    quotas: list[Quota] = Field(description="One entry for each thing that has a limit.")


Scope = Literal[SCOPES]  # type: ignore[valid-type]


class ApiKeyCreate(BaseModel):
    """What a new API key shall be called and be able to do."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00]*$")] = (
        Field(description="What to call the key, for people.")
    )
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=len(SCOPES),
        description="What the key may do; a scope that is named twice counts once.",
    )
    expires_in_seconds: float | None = Field(
        None, gt=0, le=timedelta(days=3650).total_seconds(), description="null: it does not expire."
    )


class ApiKey(Wire):
    """An API key; of the token itself only the beginning is known."""

    id: str = Field(examples=["key_019a3c5e7d1f7a2b8c4d5e6f70819203"], description="Id of the key.")
    name: str = Field(description="What its maker called it.")
    hint: str = Field(description="Beginning of the token, to recognise it by.")
    scopes: list[str] = Field(description="What the key may do.")
    created_at: AwareDatetime = Field(description="When the key was made (UTC).")
    expires_at: AwareDatetime | None = Field(
        description="When the key stops working (UTC); null: it does not expire."
    )
    revoked_at: AwareDatetime | None = Field(
        description="When the key was revoked (UTC); null: it was not."
    )
    last_used_at: AwareDatetime | None = Field(
        description="Time of the last request with this key, to the minute; null before the first."
    )
    created_by: str | None = Field(description="The key that made it; null: the operator.")


class NewApiKey(ApiKey):
    """An API key with its token, which is shown this once."""

    token: str = Field(description="The secret to send as `Authorization: Bearer das_...`.")


class Me(Wire):
    """Who is asking."""

    tenant_id: str = Field(description="Id of your tenant.")
    tenant: str = Field(description="Name of your tenant.")
    key: ApiKey = Field(description="The API key that you use.")


class AuditRecord(Wire):
    """One change: who, what, to which object, from where."""

    id: int = Field(description="Number of the record; newer ones have higher numbers.")
    created_at: AwareDatetime = Field(description="When the change was made (UTC).")
    expires_at: AwareDatetime = Field(description="When the record may be deleted (UTC).")
    key_id: str | None = Field(description="null: the operator, at the command line.")
    action: str = Field(examples=["job.create"], description="What was done, as `object.verb`.")
    object_id: str = Field(
        description="Id of the object that was changed; after `job.retry` that of the old job."
    )
    before: str | None = Field(description="SHA-256 of the object as it was.")
    after: str | None = Field(description="SHA-256 of the object as it became.")
    address: str | None = Field(
        description="Network address that the request came from; null where it is not known."
    )
    request_id: str | None = Field(
        description="`X-Request-Id` of the request; null where there was none."
    )


class PrivacyRelease(Wire):
    """A differentially private target that a job published."""

    id: int = Field(description="Number of the release; newer ones have higher numbers.")
    created_at: AwareDatetime = Field(description="When it was entered (UTC).")
    job_id: str = Field(description="Id of the job that published it; it may be deleted by now.")
    data_set: str = Field(description="SHA-256 over the texts that it is of, whatever their order.")
    rho: float = Field(
        description="zCDP parameter of the release; those of releases of the same texts add up."
    )


class Page(Wire, Generic[T]):
    """One page of a list; pass `next_cursor` as `cursor` to go on."""

    items: list[T] = Field(description="The elements of this page.")
    next_cursor: str | None = Field(
        None,
        description="Give it as `cursor` to read the next page; null on the last one, and in "
        "lists that take no cursor.",
    )


class JobTypeSummary(Wire):
    """A job type as the registry declares it."""

    name: str = Field(description="Public name, as in the path of its jobs.")
    version: str = Field(
        description="Version of the method; raised whenever the same spec may give another result."
    )
    title: str = Field(description="A few words for people.")
    summary: str = Field(description="What the job type does, in one or two sentences.")
    paper: str = Field(description="Where the method comes from; may be empty.")
    resource: Literal["cpu", "gpu", "llm"] = Field(
        description="Class of worker that takes its jobs, unless the spec asks for another."
    )
    timeout_seconds: float = Field(
        description="Limit of one attempt in seconds where the request gives none."
    )
    max_timeout_seconds: float = Field(
        description="Highest limit in seconds that a request may give."
    )
    deterministic: bool = Field(
        description="Whether the same spec, inputs and version give the same result."
    )


class JobTypeDetail(JobTypeSummary):
    """A job type with the JSON Schemas (2020-12) of its spec and result, and an example."""

    spec_schema: dict[str, Any] = Field(description="JSON Schema of the spec.")
    result_schema: dict[str, Any] = Field(description="JSON Schema of the result.")
    example: dict[str, Any] = Field(
        description="A spec to start from; names of files and models in it stand for your own."
    )


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
    database: str = Field(description="`ok`, or `away` and why.")
    schema_revision: str = Field(
        description="Revision of the database's schema, and the expected one where they differ; "
        "`unknown` while the database is away."
    )
    broker: str = Field(description="`ok` or `away`.")


class FieldError(Wire):
    """One fault of a request."""

    pointer: str = Field(description="JSON pointer into the body.", examples=["/spec/items/0/id"])
    message: str = Field(description="What is wrong there, in words.")


class Problem(Wire):
    """RFC 9457 problem details."""

    type: str = Field(
        examples=["/problems/invalid-spec"],
        description="Path that says what the problem type means.",
    )
    title: str = Field(description="The problem type in a few words.")
    status: int = Field(description="HTTP status of the answer.")
    detail: str = Field(description="What is wrong this time, in words.")
    code: str = Field(description="Name of the problem type; stable, branch on it.")
    instance: str | None = Field(None, description="Path of the request.")
    request_id: str | None = Field(
        None, description="`X-Request-Id` of the answer, for questions to the operator."
    )
    retryable: bool = Field(False, description="Whether the same request may succeed later.")
    errors: list[FieldError] = Field(
        default_factory=list,
        description="Faults of the request and where they are, the first 100; empty where there "
        "is no place to name.",
    )
    job_error: JobFailure | None = Field(
        None, description="Why the job has no result; only with `job-failed`."
    )
    quota: Quota | None = Field(
        None, description="The quota that is used up; only with `quota-exceeded`."
    )


class ProblemType(Wire):
    """What a problem type means."""

    code: str = Field(description="Name of the problem type, as in `code` of a problem.")
    title: str = Field(description="The problem type in a few words.")
    status: int = Field(description="HTTP status of answers with it.")
    retryable: bool = Field(description="Whether the same request may succeed later.")
    description: str = Field(description="What the problem type means, in words.")
