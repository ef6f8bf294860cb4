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

from infra.settings import Settings
from server import keys
from tests import services

pytestmark = pytest.mark.system

EXAMPLES = int(os.environ.get("DATASSAY_CONTRACT_EXAMPLES", "2"))
#: Specs have rules that no JSON Schema can say (fields that go together): a 422 is right there.
_UNSAYABLE = ["positive_data_acceptance"]


@pytest.mark.timeout(1600)
def test_every_operation_keeps_to_its_document(
    service_settings: Settings, engine: object, tmp_path: Path
) -> None:
    # A refusal by rate says nothing of the document.
    wide = dict.fromkeys(("rate_key", "rate_tenant", "rate_submit", "rate_address"), 10_000_000)
    settings = service_settings.model_copy(update=wide)
    token = keys.create(settings, tenant="contract", name="contract", scopes=["admin"])
    with services.serve(settings) as url:
        _run(url, token, tmp_path / "report.json")


def _run(url: str, token: str, report: Path) -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(Path(__file__).with_name("schemathesis.toml")),
            "run",
            f"{url}/v1/openapi.json",
            "--header",
            f"Authorization: Bearer {token}",
            "--max-examples",
            str(EXAMPLES),
            "--exclude-checks",
            ",".join(_UNSAYABLE),
            # It would revoke its own key.
            "--exclude-operation-id",
            "revoke_api_key",
            "--suppress-health-check",
            "all",
            "--generation-deterministic",
            "--no-shrink",
            "--continue-on-failure",
            "--no-color",
            # One thread: two that parse at once break Python before 3.11.8 (gh-106905).
            "--request-timeout",
            "30",
            "--workers",
            "1",
            "--report-json-path",
            str(report),
        ],
        capture_output=True,
        text=True,
        timeout=1500,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        check=False,
    )
    print(run.stdout[-20_000:])
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert json.loads(report.read_text())
