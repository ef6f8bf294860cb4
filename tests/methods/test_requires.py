"""What a job type says that its runner needs is enough to import it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from methods.jobtype import EXTRAS
from methods.registry import load_registry

ROOT = Path(__file__).parents[2]
#: Bundled job types by what they require.
GROUPS: dict[tuple[str, ...], list[str]] = {}
for _name, _job in sorted(load_registry().items()):
    if not _job.runner.startswith("methods.toy"):
        GROUPS.setdefault(_job.requires, []).append(_name)
#: Hides every optional module that the job types do not require, then imports their runners.
PROGRAM = """
import sys
from methods.registry import load_registry
jobs = [load_registry()[name] for name in sys.argv[1].split(",")]
required = set(jobs[0].requires)
hidden = set(sys.argv[2].split(",")) - required
if "transformers" in required:
    hidden &= {"duckdb", "ray"}  # it brings some, and imports others where they are installed
if "trl" in required:
    hidden -= {"duckdb"}  # it brings datasets, which looks whether it is there
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hide())
for job in jobs:
    job.load_runner()
"""


@pytest.mark.parametrize("names", GROUPS.values(), ids=lambda names: names[0])
def test_runners_import_what_they_say_and_no_more(names: list[str]) -> None:
    optional = ",".join({*EXTRAS, "sentence_transformers", "accelerate", "duckdb", "ray"})
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, ",".join(names), optional],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_missing_is_told_with_the_extra_that_brings_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "methods", "requirements", "--methods", "tests/toys/methods"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["toy-demanding"] == {"a_module_that_nobody_has": ""}
    assert told["rank-distilled-dataset"] == {}
