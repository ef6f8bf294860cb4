"""Every change of a job: one compare-and-set statement each, which also writes the event row.

The functions return SQLAlchemy Core statements, executed by the async gateway and the sync worker
alike. A statement that returns no row lost its race: the job was not in the expected state, or the
attempt is not the current one. The database's clock is the only clock.

Each change raises `version` by one and writes the event with `seq = version`, so the events of a
job number 1, 2, 3, ... without gaps.

Nothing else writes `jobs.state`. Outside this package only the names below are used.
"""

from models.transitions.attempt import (
    add_artifact,
    heartbeat,
    log,
    metrics,
    record_input,
    save_checkpoint,
)
from models.transitions.cancel import cancel, cancel_unneeded
from models.transitions.claim import claim, claim_child
from models.transitions.duplicates import adopt_result, requeue_waiters, reuse
from models.transitions.finish import cancelled, fail, finish, release, rescue_stalled
from models.transitions.maintenance import (
    claim_undispatched,
    expire_queued,
    forget_idempotency,
    mark_undispatched,
    soft_delete,
)
from models.transitions.submit import link_child, submit, submit_child
from models.transitions.waiting import note_waiting

__all__ = [
    "add_artifact",
    "adopt_result",
    "cancel",
    "cancel_unneeded",
    "cancelled",
    "claim",
    "claim_child",
    "claim_undispatched",
    "expire_queued",
    "fail",
    "finish",
    "forget_idempotency",
    "heartbeat",
    "link_child",
    "log",
    "mark_undispatched",
    "metrics",
    "note_waiting",
    "record_input",
    "release",
    "requeue_waiters",
    "rescue_stalled",
    "reuse",
    "save_checkpoint",
    "soft_delete",
    "submit",
    "submit_child",
]
