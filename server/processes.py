"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Account:
    """An operating-system user that a child runs as."""

    name: str
    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> Account:
        """Raises KeyError when there is no such user."""
        entry = pwd.getpwnam(name)
        return cls(name, entry.pw_uid, entry.pw_gid)


def spawn(
    command: Sequence[str | Path],
    *,
    log: Path | None,
    death_signal: signal.Signals,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child that gets `death_signal` when this process dies, however it dies.

    Args:
        log: standard output and error are appended here; None inherits them.
        account: run as this user (needs root).
    """
    output = None if log is None else log.open("ab")
    try:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env=None if env is None else dict(env),
            cwd=cwd,
            # Ctrl-C is for the parent: it stops its children in order.
            process_group=0,
            preexec_fn=_die_with_parent(death_signal),
            **as_account(account),
        )
    finally:
        if output is not None:
            output.close()


def as_account(account: Account | None) -> dict[str, Any]:
    """The arguments of `subprocess` that drop privileges."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def stop(
    child: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM, timeout: float = 30
) -> int:
    """Ask a child to stop, kill its group when it does not, and return its exit code."""
    if child.poll() is None:
        child.send_signal(how)
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return child.returncode


def _die_with_parent(how: signal.Signals) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return arrange
