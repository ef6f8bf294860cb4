"""How much memory a process took."""

from __future__ import annotations

from pathlib import Path


def peak_mib() -> float:
    """Peak resident memory of this process.

    Not `ru_maxrss`: on Linux it survives exec, so a child starts with its parent's peak.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
