"""API keys, ids and storage."""

from __future__ import annotations

import io
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.api_keys import hint, is_wellformed, new_token, token_digest
from infra.ids import is_id, new_id
from infra.settings import Settings
from infra.storage import Storage


def test_tokens_are_wellformed_and_different() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(is_wellformed(token) for token in tokens)


@given(position=st.integers(0, 51), letter=st.sampled_from("09azAZ_ é"))
def test_a_typing_error_shows(position: int, letter: str) -> None:
    token = new_token()
    wrong = token[:position] + letter + token[position + 1 :]
    assert is_wellformed(wrong) == (wrong == token)


def test_the_digest_depends_on_the_secret_and_the_hint_tells_little() -> None:
    token = new_token()
    assert token_digest(b"a" * 32, token) != token_digest(b"b" * 32, token)
    assert token_digest(b"a" * 32, token) == token_digest(b"a" * 32, token)
    assert len(hint(token)) < 20


def test_ids_sort_by_age_and_are_recognised() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_id("job"))
        time.sleep(0.002)
    assert ids == sorted(ids)
    assert all(is_id(i, "job") for i in ids)
    assert not is_id(ids[0], "file")
    assert not is_id(ids[0] + "\n", "job")
    version, variant = ids[0][4 + 12], ids[0][4 + 16]
    assert version == "7"
    assert variant in "89ab"


def test_storage_round_trip(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "store"))
    stored = storage.put("jobs/job_1/1/art_1", io.BytesIO(b"abc"))
    assert (stored.size, stored.sha256[:8]) == (3, "ba7816bf")
    assert storage.open("jobs/job_1/1/art_1").read() == b"abc"
    storage.put("jobs/job_1/2/art_2", io.BytesIO(b""))
    assert sorted(storage.keys()) == ["jobs/job_1/1/art_1", "jobs/job_1/2/art_2"]
    storage.delete("jobs/job_1")
    storage.delete("jobs/job_1")
    assert list(storage.keys()) == []
    assert not (tmp_path / "store" / "jobs").exists(), "empty folders go too"


@pytest.mark.parametrize("key", ["/etc/passwd", "a/../../b", ".."])
def test_storage_keys_stay_inside(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="storage key"):
        Storage(str(tmp_path)).open(key)


def test_a_reader_that_breaks_leaves_no_key(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("gone")

    storage = Storage(str(tmp_path))
    with pytest.raises(OSError, match="gone"):
        storage.put("files/a", Broken())
    assert list(storage.keys()) == []


def test_storage_over_another_fsspec_file_system() -> None:
    storage = Storage("memory://bucket/prefix")
    storage.put("files/a", io.BytesIO(b"abc"))
    assert storage.open("files/a").read() == b"abc"
    assert list(storage.keys()) == ["files/a"]
    assert storage.local_path("files/a") is None
    storage.delete("files/a")
    assert list(storage.keys()) == []


@pytest.mark.parametrize("place", ["file", "memory"])
def test_old_bytes_are_told_from_young(tmp_path: Path, place: str) -> None:
    storage = Storage(str(tmp_path) if place == "file" else "memory://bucket/ages")
    storage.put("files/t/young", io.BytesIO(b""))
    assert list(storage.keys(timedelta(minutes=1))) == []
    assert list(storage.keys(timedelta(minutes=-1))) == ["files/t/young"]
    storage.delete("files")


def test_a_folder_that_goes_away_under_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path))
    real, left = Path.touch, [tmp_path / "files" / "t"]

    def touch(path: Path, *args: Any) -> None:
        if left:  # somebody deletes the last file of the tenant, and its folder with it
            left.pop().rmdir()
        real(path, *args)

    monkeypatch.setattr(Path, "touch", touch)
    storage.put("files/t/a", io.BytesIO(b"abc"))
    assert storage.open("files/t/a").read() == b"abc"


def test_settings_refuse_what_cannot_work() -> None:
    with pytest.raises(ValueError, match="32 random characters"):
        Settings(secret="short").require_secret()
    with pytest.raises(ValueError, match="three times"):
        Settings(lease="PT10S", heartbeat="PT5S")


def test_ids_sort_by_age_within_a_millisecond() -> None:
    clock = iter(1_764_000_000_000_000_000 + step for step in range(0, 1_000_000, 1_000))
    with mock.patch("infra.ids.time.time_ns", side_effect=clock):
        made = [new_id("job") for _ in range(1_000)]
    assert made == sorted(made)
    assert all(is_id(one, "job") for one in made)
    assert {(one[16], one[20] in "89ab") for one in made} == {("7", True)}
