"""What a runner's own exception means to the job's owner."""

from __future__ import annotations

import sys
import traceback

from pydantic import ValidationError

#: Of torch: the class for accelerators, and what its CPU allocator says in a RuntimeError.
_OUT_OF_MEMORY_CLASS, _OUT_OF_MEMORY_TEXT = "OutOfMemoryError", "can't allocate memory"


class RunnerCrashed(Exception):  # noqa: N818 - the runner's fault, told as a fact
    """The runner raised something that is no `methods.errors.JobError`.

    Attributes:
        code, message: for the owner of the job.
        trace: for the operator.
    """

    def __init__(self, code: str, message: str, trace: str) -> None:
        # All three go to `args`, so that the exception survives its way through a pipe.
        super().__init__(code, message, trace)
        self.code, self.message, self.trace = code, message, trace

    @classmethod
    def of(cls, error: BaseException) -> RunnerCrashed:
        """To be called where the exception is handled."""
        return cls(*_meaning(error), traceback.format_exc())


def _meaning(error: BaseException) -> tuple[str, str]:
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_input=False)
        if all(fault["type"] == "finite_number" for fault in faults):
            pointer = "/".join(str(part) for part in ("", *faults[0]["loc"]))
            return "numerical_failure", f"{error.title}{pointer} came out as NaN or infinite."
    if isinstance(error, MemoryError) or type(error).__name__ == _OUT_OF_MEMORY_CLASS:
        return "out_of_memory", "The job needs more memory than it may have."
    if isinstance(error, RuntimeError) and _OUT_OF_MEMORY_TEXT in str(error):
        return "out_of_memory", "The job needs more memory than it may have."
    # An isolated runner has no database, and importing SQLAlchemy is half of its start.
    database = sys.modules.get("sqlalchemy.exc")
    if database is not None and isinstance(error, database.SQLAlchemyError):
        # Its text has our statements and everybody's values.
        return "internal", f"The service's own database failed ({type(error).__name__})."
    text = f"{type(error).__name__}: {error}"[:500]
    return "internal", f"The method failed unexpectedly ({text})."
