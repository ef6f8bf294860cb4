"""The Celery consumer of a worker."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu.asynchronous import Hub, get_event_loop, set_event_loop

from infra.settings import Settings
from workers import worker
from workers.worker import SlotPool, Worker


@pytest.fixture
def hub() -> Iterator[Hub]:
    before = get_event_loop()
    hub = Hub()
    set_event_loop(hub)
    yield hub
    set_event_loop(before)
    hub.close()


def test_the_hub_is_woken_when_the_slot_is_free_again(hub: Hub) -> None:
    pool = SlotPool(limit=1)
    listening = threading.Event()
    hub.call_soon(listening.set)
    applied = pool.on_apply(lambda: None, (), {}, callback=lambda _: hub._pop_ready())
    applied.get()
    pool.on_stop()
    assert len(hub._pop_ready()) == 1, "only what came after the callback of the task"


def test_a_worker_that_stumbles_goes_on(service_settings: Settings) -> None:
    worker = Worker(service_settings, {}, ["cpu"])
    looks = []

    class Stumbles:
        def run_until_empty(self) -> None:
            looks.append(1)
            raise OSError("No space left on device")

    executor: Any = Stumbles()
    worker._executor.close()
    worker._executor = executor
    worker.wake()
    worker.wake()
    assert len(looks) == 2


_HOLDER = """
import ctypes
from datetime import timedelta
from workers.worker import start_stall_watchdog
start_stall_watchdog(timedelta(seconds=1))
ctypes.PyDLL(None).sleep(100)
"""


def test_a_process_whose_lock_is_held_for_ever_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HOLDER], capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == 1
    assert "most recent call first" in done.stderr, "for the operator: who held it"


def test_a_bell_during_the_last_look_is_not_lost(service_settings: Settings) -> None:
    worker = Worker(service_settings, {}, ["cpu"])
    looks = []

    class LooksOnce:
        def run_until_empty(self) -> None:
            looks.append(1)
            if len(looks) == 1:
                worker.wake()  # a message comes when this look has already seen an empty queue

    executor: Any = LooksOnce()
    worker._executor.close()
    worker._executor = executor
    worker.wake()
    assert len(looks) == 2


@pytest.mark.parametrize("hears", [True, False])
def test_a_worker_that_serves_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hears: bool
) -> None:
    """At once when it hears bells; when the broker is away, by the time it looks for jobs."""
    monkeypatch.setattr(worker, "_POLL_SECONDS", 30 if hears else 0.05)
    file, serving, ended = tmp_path / "alive", threading.Event(), threading.Event()
    thread = threading.Thread(target=worker.touch_liveness_file, args=(file, serving, ended))
    thread.start()
    if hears:
        time.sleep(0.1)
        assert not file.exists(), "nothing serves yet"
        serving.set()
    deadline = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ended.set()
    thread.join(20)
    assert not thread.is_alive()
