"""What became of every promise: jobs, effects, terminal states, recovery."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from datassay import DatassayError

from tests.system.faults.faults import Fault
from tests.system.faults.load import Load
from tests.system.faults.stage import TENANTS, Stage

TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


@dataclass
class Report:
    """The figures; every list of strings must be empty.

    Attributes:
        lost: jobs that did not end, or not as they should, and keys without exactly one job.
        double_effects: jobs with not exactly one terminal commit, or with effects of two starts.
        violations: changes of a job after its end.
        late_writes: conclusions of attempts that were not theirs to write any more; refused.
        recovery: by kind of fault, seconds until the job that was hit ran again.
    """

    seed: int
    seconds: float
    faults: dict[str, int]
    jobs: int = 0
    attempts: int = 0
    starts: int = 0
    cancelled: int = 0
    lost: list[str] = field(default_factory=list)
    double_effects: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    late_writes: int = 0
    recovery: dict[str, dict[str, float]] = field(default_factory=dict)
    doctor: str = ""

    @property
    def clean(self) -> bool:
        """Every promise was kept."""
        return not (self.lost or self.double_effects or self.violations or self.surprises)

    def json(self) -> dict[str, Any]:
        return asdict(self)


def audit(stage: Stage, load: Load, faults: list[Fault], seconds: float, seed: int) -> Report:
    """Compare what was promised with what is there."""
    counts: dict[str, int] = defaultdict(int)
    for fault in faults:
        counts[fault.kind] += 1
    report = Report(seed, round(seconds, 1), dict(sorted(counts.items())))
    report.surprises = list(load.surprises)
    rows = stage.query(
        "SELECT id, state, error->>'message', result->>'token', spec->>'key' FROM jobs"
    )
    jobs: dict[str, Any] = {str(row[0]): row for row in rows}
    _jobs(report, load, jobs)
    _effects(report, stage, jobs)
    _ledger(report, stage)
    report.late_writes = _late_writes(stage)
    ((attempts,),) = stage.query("SELECT count(*) FROM job_attempts")
    report.attempts = int(str(attempts))
    report.starts = sum(" start " in line for line in stage.journal.read_text().splitlines())
    report.recovery = _recovery(stage, faults)
    return report


def _jobs(report: Report, load: Load, jobs: dict[str, Any]) -> None:
    report.jobs = len(jobs)
    for key, ids in load.accepted.items():
        if len(set(ids)) != 1:
            report.lost.append(f"{key} was answered with {sorted(set(ids))}")
        if ids[0] not in jobs:
            report.lost.append(f"{key}: {ids[0]} does not exist")
    by_key: dict[str, list[str]] = defaultdict(list)
    for job_id, state, error, _, key in jobs.values():
        by_key[key].append(job_id)
        allowed = {"SUCCEEDED", "CANCELLED"} if job_id in load.cancelled else {"SUCCEEDED"}
        if state not in allowed:
            report.lost.append(f"{job_id} ({key}) is {state}: {error}")
        report.cancelled += state == "CANCELLED"
    report.lost += [f"{key} has {len(ids)} jobs" for key, ids in by_key.items() if len(ids) > 1]


def _effects(report: Report, stage: Stage, jobs: dict[str, Any]) -> None:
    """Through the API, as its user sees it: the artifact is of the start that the result is of."""
    seen = 0
    for tenant in TENANTS:
        with stage.client(tenant) as client:
            for job in client.jobs.list():
                artifacts = list(job.artifacts())
                if job.raw_state != "SUCCEEDED":
                    if artifacts:
                        report.double_effects.append(f"{job.id}: artifacts without success")
                    continue
                seen += 1
                token = jobs[job.id][3]
                try:
                    found = [b"".join(a.iter_bytes()).decode().strip() for a in artifacts]
                except DatassayError as error:
                    report.lost.append(f"{job.id}: its artifact cannot be read: {error}")
                    continue
                if found != [token]:
                    report.double_effects.append(f"{job.id}: result of {token}, effects {found}")
    succeeded = sum(row[1] == "SUCCEEDED" for row in jobs.values())
    if seen != succeeded:
        report.lost.append(f"{succeeded} jobs succeeded, the API shows {seen}")


def _ledger(report: Report, stage: Stage) -> None:
    ends: dict[str, int] = defaultdict(int)
    for job_id, old, new in stage.query("SELECT job_id, old, new FROM ledger ORDER BY at"):
        if old in TERMINAL:
            report.violations.append(f"{job_id}: {old} became {new}")
        ends[str(job_id)] += new in TERMINAL
    report.double_effects += [f"{job}: ended {n} times" for job, n in ends.items() if n != 1]
    after = stage.query(
        "SELECT e.job_id FROM job_events e JOIN job_events t USING (job_id) "
        "WHERE t.terminal AND e.seq > t.seq"
    )
    report.violations += [f"{row[0]}: an event after the end" for row in after]


def _late_writes(stage: Stage) -> int:
    """Conclusions that were refused; not those whose commit went well and whose answer was lost."""
    won = set(stage.query("SELECT id, attempt FROM jobs WHERE finished_at IS NOT NULL"))
    late = set()
    for log in stage.logs.glob("worker-*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if '"event": "the attempt was not ours to end"' in line:
                entry = json.loads(line)
                late.add((entry["job_id"], entry["attempt"]))
    return len(late - won)


def _recovery(stage: Stage, faults: list[Fault]) -> dict[str, dict[str, float]]:
    """From the fault to the next start of the job that was hit, or to the next claim at all."""
    rows = stage.query("SELECT worker, job_id, number, started_at, ended_at FROM job_attempts")
    by_worker: dict[str, list[Any]] = defaultdict(list)
    starts: dict[tuple[str, int], float] = {}
    for worker, job_id, number, started, ended in rows:
        assert isinstance(started, datetime)
        end = ended.timestamp() if isinstance(ended, datetime) else float("inf")
        by_worker[str(worker)].append((started.timestamp(), end, job_id, number))
        starts[str(job_id), int(str(number))] = started.timestamp()
    claims = sorted(starts.values())
    found: dict[str, list[float]] = defaultdict(list)
    for fault in faults:
        for started, ended, job_id, number in by_worker.get(fault.worker or "", []):
            again = starts.get((job_id, number + 1))
            if started <= fault.at < ended and again is not None:
                found[fault.kind].append(again - fault.at)
        if fault.kind in {"database crashed", "broker killed, its data wiped"}:
            found[fault.kind] += [c - fault.at for c in claims if c > fault.at][:1]
    return {
        kind: {
            "n": len(times),
            "p50": round(statistics.median(times), 2),
            "max": round(max(times), 2),
        }
        for kind, times in sorted(found.items())
    }
