"""Every request of the API as data: what to send, not how.

The sync and the async client build their requests here, so an endpoint is written down once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, TypedDict
from urllib.parse import quote

from datassay.uploads import Upload

#: The service coerces larger pages.
LARGEST_PAGE = 200


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        hold: Seconds that the service may keep the request open before it answers.
        stream: Whether the body is read piece by piece by the caller.
        retry: Whether failures are retried.
        accepts: Statuses beside 2xx that are answers and not errors.
    """

    method: str
    path: str
    params: Mapping[str, str | list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    upload: Upload | None = None
    hold: float = 0.0
    stream: bool = False
    retry: bool = True
    accepts: frozenset[int] = frozenset()

    @property
    def repeatable(self) -> bool:
        """Whether the same bytes can be sent again."""
        return self.retry and (self.upload is None or self.upload.seekable())

    def at(self, cursor: str | None, limit: int) -> Call:
        """This list request for one page."""
        page = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        return replace(self, params={**self.params, **page})


class JobOptions(TypedDict, total=False):
    """How a job shall run, beside its spec.

    Keys:
        labels: Your own key-value pairs, for filters.
        priority: -100 to 100; higher runs first among your own jobs.
        max_attempts: How often the job may start when workers die under it.
        timeout: Seconds that one attempt may take; default: the job type's.
        queue_timeout: Seconds after which a job that no worker took is EXPIRED.
        expires_after: Seconds that the job and its data are kept after its end.
        cache: "use" (default) takes over the result of an earlier job of yours with the same spec,
            inputs and models, if the job type is deterministic; "refresh" runs anyway; "off" also
            keeps the result from later jobs.
    """

    labels: Mapping[str, str]
    priority: int
    max_attempts: int
    timeout: float
    queue_timeout: float
    expires_after: float
    cache: Literal["use", "refresh", "off"]


class JobFilter(TypedDict, total=False):
    """Which jobs to list; all conditions hold together.

    Keys:
        type: Name of a job type.
        state: One state or several.
        labels: Labels that the job has.
        created_after, created_before: Aware datetimes.
        parent: Id of a job whose parts are wanted; no other list shows them.
    """

    type: str
    state: str | list[str]
    labels: Mapping[str, str]
    created_after: datetime
    created_before: datetime
    parent: str


_BODY_NAMES = {
    "timeout": "timeout_seconds",
    "queue_timeout": "queue_timeout_seconds",
    "expires_after": "expires_after_seconds",
}


def create_job(
    job_type: str,
    spec: Mapping[str, Any],
    options: JobOptions,
    *,
    wait: float | None,
    idempotency_key: str | None,
    dry_run: bool,
) -> Call:
    """POST a job; `wait` asks the service to hold the answer until the job has ended."""
    body = {_BODY_NAMES.get(name, name): value for name, value in options.items()}
    headers = _idempotent(idempotency_key) | ({} if wait is None else _prefer_wait(wait))
    return Call(
        "POST",
        f"/v1/jobs/{_id(job_type)}",
        params={"dry_run": "true"} if dry_run else {},
        headers=headers,
        json={"spec": dict(spec), **body},
        hold=wait or 0.0,
    )


def list_jobs(condition: JobFilter) -> Call:
    """List jobs, newest first."""
    params: dict[str, str | list[str]] = {}
    if "type" in condition:
        params["type"] = condition["type"]
    if "state" in condition:
        state = condition["state"]
        params["state"] = [str(state)] if isinstance(state, str) else [str(s) for s in state]
    if condition.get("labels"):
        params["label"] = [f"{key}:{value}" for key, value in condition["labels"].items()]
    if "created_after" in condition:
        params["created_after"] = condition["created_after"].isoformat()
    if "created_before" in condition:
        params["created_before"] = condition["created_before"].isoformat()
    if "parent" in condition:
        params["parent"] = condition["parent"]
    return Call("GET", "/v1/jobs", params=params)


def get_job(job_id: str) -> Call:
    """The job as it is now."""
    return Call("GET", f"/v1/jobs/{_id(job_id)}")


def poll_job(job_id: str, etag: str, hold: float) -> Call:
    """The job once it is no longer what `etag` says, or 304 after `hold` seconds."""
    headers = {"If-None-Match": etag, **_prefer_wait(hold)}
    return replace(get_job(job_id), headers=headers, hold=hold, accepts=frozenset({304}))


def cancel_job(job_id: str) -> Call:
    """Ask that the job stop."""
    return Call("POST", f"/v1/jobs/{_id(job_id)}/cancel", headers=_idempotent())


def retry_job(job_id: str) -> Call:
    """A new job with the spec of an ended one."""
    return Call("POST", f"/v1/jobs/{_id(job_id)}/retry", headers=_idempotent())


def delete_job(job_id: str) -> Call:
    """Purge an ended job and its data."""
    return Call("DELETE", f"/v1/jobs/{_id(job_id)}")


def job_result(job_id: str) -> Call:
    """The result as JSON."""
    return Call("GET", f"/v1/jobs/{_id(job_id)}/result")


def job_events(job_id: str, after: int) -> Call:
    """The events so far, as JSON."""
    params = {"after": str(after), "limit": str(LARGEST_PAGE)}
    return Call("GET", f"/v1/jobs/{_id(job_id)}/events", params=params)


def follow_events(job_id: str, after: int) -> Call:
    """The events after number `after` as they happen (SSE)."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if after:
        headers["Last-Event-ID"] = str(after)
    return Call("GET", f"/v1/jobs/{_id(job_id)}/events", headers=headers, stream=True)


def job_attempts(job_id: str) -> Call:
    """Every start of the job."""
    return Call("GET", f"/v1/jobs/{_id(job_id)}/attempts")


def job_artifacts(job_id: str) -> Call:
    """The artifacts of a job."""
    return Call("GET", f"/v1/jobs/{_id(job_id)}/artifacts")


def job_metrics(job_id: str, after: int = 0) -> Call:
    """The job's figures over time."""
    return Call(
        "GET", f"/v1/jobs/{_id(job_id)}/metrics", params={"after": str(after)} if after else {}
    )


def report_link(job_id: str, seconds: float | None) -> Call:
    """A link to the report; a second one does no harm."""
    body = {} if seconds is None else {"expires_in_seconds": seconds}
    return Call("POST", f"/v1/jobs/{_id(job_id)}/report-links", json=body)


def artifact_content(artifact_id: str, offset: int) -> Call:
    """The bytes of an artifact from `offset` on."""
    headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    return Call("GET", f"/v1/artifacts/{_id(artifact_id)}/content", headers=headers, stream=True)


def upload_file(upload: Upload) -> Call:
    """Send a file."""
    return Call("POST", "/v1/files", headers=_idempotent(), upload=upload)


def list_files(sha256: str | None = None) -> Call:
    """List uploaded files, newest first."""
    return Call("GET", "/v1/files", params={"sha256": sha256} if sha256 else {})


def get_file(file_id: str) -> Call:
    """What the service knows of an uploaded file."""
    return Call("GET", f"/v1/files/{_id(file_id)}")


def delete_file(file_id: str) -> Call:
    """Delete an uploaded file."""
    return Call("DELETE", f"/v1/files/{_id(file_id)}")


def list_job_types() -> Call:
    """Everything that the service can do."""
    return Call("GET", "/v1/job-types")


def get_job_type(name: str) -> Call:
    """A job type with its schemas."""
    return Call("GET", f"/v1/job-types/{_id(name)}")


def list_models() -> Call:
    """The models that specs may name."""
    return Call("GET", "/v1/models")


def me() -> Call:
    """Whose key this is."""
    return Call("GET", "/v1/me")


def usage() -> Call:
    """What the tenant takes up."""
    return Call("GET", "/v1/usage")


def create_key(name: str, scopes: Sequence[str], expires_in: float | None) -> Call:
    """Make an API key; not repeated, for a lost answer would leave a key that nobody knows."""
    body = {"name": name, "scopes": list(scopes), "expires_in_seconds": expires_in}
    return Call("POST", "/v1/api-keys", json=body, retry=False)


def list_keys() -> Call:
    """List API keys, newest first."""
    return Call("GET", "/v1/api-keys")


def revoke_key(key_id: str) -> Call:
    """End an API key."""
    return Call("DELETE", f"/v1/api-keys/{_id(key_id)}")


def audit() -> Call:
    """List changes, newest first."""
    return Call("GET", "/v1/audit")


def privacy_releases() -> Call:
    """List differentially private releases, newest first."""
    return Call("GET", "/v1/privacy-releases")


def ready() -> Call:
    """Whether the service can serve; 503 is an answer here, and asked once."""
    return Call("GET", "/readyz", retry=False, accepts=frozenset({503}))


def _id(name: str) -> str:
    """`name` as one segment of a path; an empty one would address the whole collection."""
    if not name:
        raise ValueError("an id must not be empty")
    return quote(name, safe="")


def _idempotent(key: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": key or str(uuid.uuid4())}


def _prefer_wait(seconds: float) -> dict[str, str]:
    return {"Prefer": f"wait={max(1, round(seconds))}"}
