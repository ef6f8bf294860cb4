"""One run: a stage, a load, so many faults, the settling, the audit."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.system.faults.audit import Report, audit
from tests.system.faults.faults import Saboteur
from tests.system.faults.load import Load
from tests.system.faults.stage import ORPHAN_SECONDS, TENANTS, Stage, staged

_SETTLE_SECONDS = 120.0


def run(
    seed: int, faults: int, pace: float = 1.5, workers: int = 4, logs: Path | None = None
) -> Report:
    """Inject `faults` faults, one every `pace` seconds on average; returns what was found.

    Args:
        logs: the processes' logs are copied to this folder.
    """
    with staged(workers) as stage:
        began = time.monotonic()
        load = Load(stage, seed)
        load.start()
        saboteur = Saboteur(stage, seed, pace)
        try:
            saboteur.run(faults)
        finally:
            load.stop()
            if logs is not None:
                shutil.copytree(stage.logs, logs, dirs_exist_ok=True)
        _settle(stage)
        seconds = time.monotonic() - began
        report = audit(stage, load, saboteur.done, seconds, seed)
        _delete_some(stage)
        # What was left behind is swept up at that age, and overdue at twice of it.
        time.sleep(2 * ORPHAN_SECONDS + 2)
        examined = stage.doctor()
        report.doctor = "" if examined.returncode == 0 else examined.stdout + examined.stderr
        return report


def _delete_some(stage: Stage) -> None:
    for tenant in TENANTS:
        with stage.client(tenant) as client:
            for job in list(client.jobs.list())[::3]:
                client.jobs.delete(job.id)


def _settle(stage: Stage) -> None:
    """Wait until every job has ended and every worker is done."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        stage.tend()
        ((left,),) = stage.query("SELECT count(*) FROM jobs WHERE finished_at IS NULL")
        if left == 0 or time.monotonic() > deadline:
            return
        time.sleep(0.2)
