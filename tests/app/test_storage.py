"""What the gateway answers when the storage does not take or find bytes."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from typing import Any

import pytest
from datassay import Client
from datassay.errors import BackendUnavailable, NotFound
from sqlalchemy import Engine

from infra.storage import Storage
from tests.services import Workplace


def test_a_full_disk_is_an_outage_and_no_fault_of_the_client(
    api: Client, monkeypatch: pytest.MonkeyPatch, workplace: Workplace
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = stored(workplace)
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "_copy", refuse)
        with pytest.raises(BackendUnavailable, match="storage is full"):
            api.files.upload(io.BytesIO(b"x"), "x")
    assert list(api.files.list()) == []
    assert stored(workplace) == before


def stored(workplace: Workplace) -> set[Path]:
    return {path for path in workplace.settings_storage().rglob("*") if path.is_file()}


def test_deleting_is_done_when_the_rows_are_gone(
    api: Client, monkeypatch: pytest.MonkeyPatch, workplace: Workplace, engine: Engine
) -> None:
    job, file = api.jobs.create("toy", {"artifact": "x"}), api.files.upload(io.BytesIO(b"x"), "x")
    workplace.run()

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "a journal needs room too")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete", refuse)
        for delete in (lambda: api.jobs.delete(job.id), lambda: api.files.delete(file.id)):
            with pytest.raises(BackendUnavailable):
                delete()
    for get in (lambda: api.jobs.get(job.id), lambda: api.files.get(file.id)):
        with pytest.raises(NotFound):
            get()
