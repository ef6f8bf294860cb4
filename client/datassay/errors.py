"""Everything that this package raises.

DatassayError
  ConfigurationError          an unusable URL or key file
  ConnectionFailed            no answer: refused, dropped or timed out
  InvalidResponse             an answer that is not what the service promises
  ChecksumMismatch            downloaded bytes are not those that the job produced
  WebhookVerificationFailed   a webhook that does not come from the service, or came too late
  WaitTimeout                 the job is still going on (also a TimeoutError)
  JobEnded                    the job ended without a result: .job, .error
    JobFailed  JobCancelled  JobExpired
  APIError                    the service refused: .status, .code, .problem, .request_id
    BadRequest 400  Unauthenticated 401  Forbidden 403  NotFound 404
    Conflict 409
      JobTerminal  JobNotFinished  ResultUnavailable  IdempotencyInFlight
    PreconditionFailed 412  PayloadTooLarge 413  UnsupportedMediaType 415
    Unprocessable 422
      InvalidSpec  IdempotencyMismatch
    TooManyRequests 429
      RateLimited  QuotaExceeded
    ServerError 5xx
      BackendUnavailable 503
"""

# States of the world read better without an "Error" at their end: `except NotFound`.
# ruff: noqa: N818

from __future__ import annotations

from typing import ClassVar

from datassay.models import FieldError, JobError, JobRecord, JobState, Problem, Quota


class DatassayError(Exception):
    """Base of everything that this package raises."""


class ConfigurationError(DatassayError, ValueError):
    """The address or the key cannot be used."""


class ConnectionFailed(DatassayError):
    """No answer came: refused, dropped or timed out.

    Attributes:
        transient: Whether the same request may succeed later.
    """

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class InvalidResponse(DatassayError):
    """The answer is not what the service promises; often a proxy's page."""


class ChecksumMismatch(DatassayError):
    """Downloaded bytes are not those that the job produced."""


class WebhookVerificationFailed(DatassayError):
    """A webhook that does not come from the service, or came too late."""


class WaitTimeout(DatassayError, TimeoutError):
    """The job was still going on when the time of `wait` was over.

    Attributes:
        job: The job as last seen.
    """

    def __init__(self, job: JobRecord, seconds: float) -> None:
        super().__init__(f"job {job.id} is still {job.raw_state} after {seconds:g} s")
        self.job = job


class JobEnded(DatassayError):
    """The job ended without a result.

    Attributes:
        job: The job in its terminal state.
        error: What the service tells of the reason, None for most cancelled jobs.
    """

    def __init__(self, job: JobRecord) -> None:
        reason = f": {job.error.message} ({job.error.code})" if job.error else ""
        super().__init__(f"job {job.id} is {job.raw_state}{reason}")
        self.job = job
        self.error: JobError | None = job.error

    @staticmethod
    def of(job: JobRecord) -> JobEnded:
        """The exception for the state of `job`."""
        return _ENDS.get(job.state, JobEnded)(job)


class JobFailed(JobEnded):
    """The job ran and failed."""


class JobCancelled(JobEnded):
    """The job was cancelled."""


class JobExpired(JobEnded):
    """No worker took the job within its queue timeout."""


_ENDS: dict[JobState, type[JobEnded]] = {
    JobState.FAILED: JobFailed,
    JobState.CANCELLED: JobCancelled,
    JobState.EXPIRED: JobExpired,
}


class APIError(DatassayError):
    """The service refused a request.

    Attributes:
        problem: The whole answer (RFC 9457).
        status: HTTP status.
        code: Stable name of the reason, "" when the answer had none.
        request_id: What the operator finds the request by.
        retry_after: Seconds that the service asks to wait, if it does.
    """

    #: The problem code that this class stands for; "" for the class of a whole status.
    problem_code: ClassVar[str] = ""

    def __init__(self, problem: Problem, *, retry_after: float | None = None) -> None:
        self.problem = problem
        self.status = problem.status
        self.code = problem.code
        self.request_id = problem.request_id
        self.retry_after = retry_after
        super().__init__(problem)

    @property
    def errors(self) -> list[FieldError]:
        """The single faults of the request, if the service named them."""
        return self.problem.errors

    def __str__(self) -> str:
        """The reason in one line, then one line for each faulty field."""
        text = self.problem.detail or self.problem.title or "no details"
        head = f"{text} ({self.status}{' ' + self.code if self.code else ''})"
        # The reason is often the first of the faults.
        others = [fault for fault in self.errors if fault.message not in text]
        return "\n".join([head, *(f"  {e.pointer or '/'}: {e.message}" for e in others)])


class BadRequest(APIError):
    """400: the request cannot be understood."""


class Unauthenticated(APIError):
    """401: no key, or one that is unknown, revoked or expired."""


class Forbidden(APIError):
    """403: the key lacks the scope."""


class NotFound(APIError):
    """404: no such thing, or not this tenant's."""


class Conflict(APIError):
    """409: the thing is not in the state that the request needs."""


class JobTerminal(Conflict):
    """The job has ended already."""

    problem_code = "job-terminal"


class JobNotFinished(Conflict):
    """The job has no result yet."""

    problem_code = "job-not-finished"


class ResultUnavailable(Conflict):
    """The job ended without a result; `job_error` says why."""

    problem_code = "job-failed"

    @property
    def job_error(self) -> JobError | None:
        """Why the job has no result."""
        return self.problem.job_error


class IdempotencyInFlight(Conflict):
    """The first request with this Idempotency-Key is still being answered."""

    problem_code = "idempotency-in-flight"


class PreconditionFailed(APIError):
    """412: the thing changed in the meantime."""


class PayloadTooLarge(APIError):
    """413: the body is over the limit."""


class UnsupportedMediaType(APIError):
    """415: the service does not take this kind of body."""


class Unprocessable(APIError):
    """422: understood, but not acceptable."""


class InvalidSpec(Unprocessable):
    """The spec breaks the job type's schema; `errors` lists every fault with its pointer."""

    problem_code = "invalid-spec"


class IdempotencyMismatch(Unprocessable):
    """The Idempotency-Key was used before for another request."""

    problem_code = "idempotency-mismatch"


class TooManyRequests(APIError):
    """429: slow down."""


class RateLimited(TooManyRequests):
    """Too many requests in a short time."""

    problem_code = "rate-limited"


class QuotaExceeded(TooManyRequests):
    """The tenant has taken up what it may.

    Where waiting helps (jobs wait), `retry_after` is set; else something has to be deleted.
    """

    problem_code = "quota-exceeded"

    @property
    def quota(self) -> Quota | None:
        """Which quota, how much of it is used, and its limit."""
        return self.problem.quota


class ServerError(APIError):
    """5xx: the service failed."""


class BackendUnavailable(ServerError):
    """503: the service cannot reach its database."""

    problem_code = "backend-unavailable"


_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    412: PreconditionFailed,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    422: Unprocessable,
    429: TooManyRequests,
}

_BY_CODE: dict[str, type[APIError]] = {
    kind.problem_code: kind
    for kind in (
        JobTerminal,
        JobNotFinished,
        ResultUnavailable,
        IdempotencyInFlight,
        InvalidSpec,
        IdempotencyMismatch,
        RateLimited,
        QuotaExceeded,
        BackendUnavailable,
    )
}


def api_error(problem: Problem, *, retry_after: float | None = None) -> APIError:
    """The exception for a problem: by its code, else by its status, else by the status class."""
    kind = _BY_CODE.get(problem.code) or _BY_STATUS.get(problem.status)
    if kind is None:
        kind = ServerError if problem.status >= 500 else APIError
    return kind(problem, retry_after=retry_after)
