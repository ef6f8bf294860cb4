"""What a crash tells the job's owner."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError

from workers.runner_errors import RunnerCrashed


def test_a_failure_of_our_database_shows_no_statement_and_no_values() -> None:
    error = IntegrityError("INSERT INTO jobs VALUES (%s)", {"spec": "secret"}, Exception("key"))
    crash = RunnerCrashed.of(error)
    assert crash.code == "internal"
    assert crash.message == "The service's own database failed (IntegrityError)."
