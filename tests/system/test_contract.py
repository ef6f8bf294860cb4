"""Every operation against its own document, by Schemathesis: examples, edges, fuzzing, chains.

`DATASSAY_CONTRACT_EXAMPLES` is the number of generated cases an operation and phase.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.settings import Settings
from server import keys

pytestmark = pytest.mark.system

EXAMPLES = int(os.environ.get("DATASSAY_CONTRACT_EXAMPLES", "10"))
#: Specs have rules that no JSON Schema can say (fields that go together): a 422 is right there.
_UNSAYABLE = ["positive_data_acceptance"]


def test_every_operation_keeps_to_its_document(
    gateway_url: str, service_settings: Settings, engine: object, tmp_path: Path
) -> None:
    token = keys.create(service_settings, tenant="contract", name="contract", scopes=["admin"])
    report = tmp_path / "report.json"
    run = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", f"{gateway_url}/v1/openapi.json",
            "--header", f"Authorization: Bearer {token}",
            "--max-examples", str(EXAMPLES),
            "--exclude-checks", ",".join(_UNSAYABLE),
            # It would revoke its own key.
            "--exclude-operation-id", "revoke_api_key",
            "--suppress-health-check", "all",
            "--generation-deterministic", "--no-shrink", "--continue-on-failure", "--no-color",
            "--request-timeout", "30", "--workers", "2",
            "--report-json-path", str(report),
        ],
        capture_output=True,
        text=True,
        timeout=1500,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        check=False,
    )  # fmt: skip
    print(run.stdout[-20_000:])
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert json.loads(report.read_text())
