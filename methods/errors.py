"""How a runner says that it cannot go on. The codes are stable; clients branch on them."""

from __future__ import annotations

from typing import Any, Literal

Origin = Literal["user", "system"]

#: code -> (origin, retryable). User errors are never retried by the service.
ERROR_CODES: dict[str, tuple[Origin, bool]] = {
    "input_unreadable": ("user", False),
    "input_invalid": ("user", False),
    "input_changed": ("user", False),
    "too_large": ("user", False),
    "model_unknown": ("user", False),
    "model_unavailable": ("system", True),
    "model_rejected_request": ("user", False),
    "out_of_memory": ("system", True),
    "numerical_failure": ("user", False),
    "timeout": ("user", False),
    "worker_lost": ("system", True),
    "no_worker": ("system", False),
    "attempts_exhausted": ("system", False),
    "cancelled": ("user", False),
    "internal": ("system", True),
}


class JobError(Exception):
    """A job ended without a result.

    Args:
        code: one of `ERROR_CODES`.
        message: one sentence for a person; it is stored with the job.
        details: JSON for machines, e.g. the bad rows of an input file.
        retryable: overrides what the code says.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retryable: bool | None = None,
    ) -> None:
        origin, default = ERROR_CODES[code]
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details or {}
        self.origin: Origin = origin
        self.retryable = default if retryable is None else retryable

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.code, self.message, self.details, self.retryable)


def _rebuild(code: str, message: str, details: dict[str, Any], retryable: bool) -> JobError:
    return JobError(code, message, details=details, retryable=retryable)


class Interrupted(Exception):  # noqa: N818 - a state of the world, not a fault of the runner
    """The runner must stop now and leave nothing behind; raised by `RunContext.check()`."""


class JobCancelled(Interrupted):
    """Somebody asked for the job to be cancelled."""


class LeaseLost(Interrupted):
    """Another worker owns the job by now; whatever this attempt writes is refused."""


class DeadlineExceeded(Interrupted):
    """The attempt ran past its timeout."""


class ShuttingDown(Interrupted):
    """The worker is stopping; the job goes back to the queue."""
