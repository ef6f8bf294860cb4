"""The states of a job and which may follow which (docs/operations.md has the diagram)."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """Few states; phases within RUNNING are free text in `progress`."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})

#: A worker holds a lease in these states and in no other.
LEASED = frozenset({JobState.RUNNING, JobState.CANCELLING})

#: state -> states that may follow; the trigger in the database enforces the same table.
FOLLOWERS: dict[JobState, frozenset[JobState]] = {
    # Straight to SUCCEEDED goes only a job that waited for an equal one and adopts its result.
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.CANCELLED, JobState.EXPIRED, JobState.SUCCEEDED}
    ),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING}
    ),
    JobState.CANCELLING: frozenset({JobState.CANCELLED, JobState.SUCCEEDED, JobState.FAILED}),
    **{state: frozenset() for state in TERMINAL},
}
