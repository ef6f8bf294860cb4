"""The gateway stays light."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
import app.main
heavy = {"torch", "numpy", "scipy", "transformers", "workers", "sklearn", "regex"}
print(sorted(heavy & set(sys.modules)))
import os
os.environ["DATASSAY_SECRET"] = "x" * 40
app.main.create_app()
print(sorted(heavy & set(sys.modules)))
"""


def test_the_gateway_imports_no_numerics_and_no_worker() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]
