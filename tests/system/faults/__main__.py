"""`python -m tests.system.faults`: the long run, its table and its JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.system.faults.run import run
from tests.toys.reporting import table, write


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pace", type=float, default=1.5, help="mean seconds between faults")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--logs", type=Path, help="copy the logs of all processes to this folder")
    args = parser.parse_args()
    report = run(args.seed, args.faults, args.pace, args.workers, args.logs)
    rows = [(kind, str(count)) for kind, count in report.faults.items()]
    print(table(("fault", "times"), [*rows, ("all", str(sum(report.faults.values())))]))
    print()
    times = [
        (kind, str(t["n"]), f"{t['p50']:.1f} s", f"{t['max']:.1f} s")
        for kind, t in report.recovery.items()
    ]
    print(table(("recovery after", "n", "p50", "max"), times))
    print()
    counted = ("jobs", "attempts", "starts", "cancelled", "late_writes")
    figures = [(name, str(getattr(report, name))) for name in counted]
    broken = ("lost", "double_effects", "violations", "surprises")
    figures += [(name, str(len(getattr(report, name)))) for name in broken]
    print(table(("figure", "number"), figures))
    for name in broken:
        for line in getattr(report, name)[:20]:
            print(f"{name}: {line}")
    print(report.doctor)
    path = write("faults", [report.json()])
    print(f"seed {args.seed}, {report.seconds:g} s; {path}")
    return 0 if report.clean and not report.doctor else 1


if __name__ == "__main__":
    sys.exit(main())
