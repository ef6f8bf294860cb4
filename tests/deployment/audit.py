"""Known vulnerabilities of what is pinned: `python -m tests.deployment.audit PIP-AUDIT FILE...`.

Ends with 1 if there is one, or if it cannot be asked for. What the advisory service does not tell,
or that it cannot be reached, is said and is no failure: a change must not wait for somebody else's
service.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

_AWAY = re.compile(r"connect|redirecting|network|timed? ?out|server error|ssl|proxy", re.I)


@dataclass(frozen=True)
class Audit:
    """What was found: `name version: ids` of each vulnerable package, and how many were looked up.

    why: the last words of an audit that told nothing. ours: and it is not the service's fault.
    """

    vulnerable: tuple[str, ...] = ()
    told: int = 0
    asked: int = 0
    why: str = ""
    ours: bool = False

    @property
    def failed(self) -> bool:
        return bool(self.vulnerable) or self.ours

    def __str__(self) -> str:
        if self.why:
            return f"Not audited: {self.why}"
        head = f"Audited {self.told} of {self.asked} pinned packages"
        rest = "" if self.told else " (the advisory service knows none: not reached, or a mirror)"
        return "\n".join([head + rest, *self.vulnerable])


def read(out: str, err: str) -> Audit:
    """What the output of `pip-audit --format json` says."""
    try:
        packages: list[dict[str, Any]] = json.loads(out)["dependencies"]
    except ValueError:
        away = any(_AWAY.search(line) for line in err.splitlines())
        return Audit(why=err.strip()[-2000:] or "no output", ours=not away)
    return Audit(
        vulnerable=tuple(
            f"{p['name']} {p['version']}: {', '.join(v['id'] for v in p['vulns'])}"
            for p in packages
            if p.get("vulns")
        ),
        told=sum("vulns" in p for p in packages),
        asked=len(packages),
    )


def main(command: str, files: list[str]) -> int:
    options = [word for file in files for word in ("-r", file)]
    run = subprocess.run(
        [command, *options, "--no-deps", "--disable-pip", "--format", "json", "--timeout", "10"],
        capture_output=True,
        text=True,
        check=False,
    )
    found = read(run.stdout, run.stderr)
    print(found)
    return found.failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
