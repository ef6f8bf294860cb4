"""The compose file fits its schema, and says what the README says of it.

No Docker engine runs here; `compose-spec.json` is the published schema (Apache-2.0).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return document


def test_the_compose_file_fits_its_schema(compose: dict[str, Any]) -> None:
    schema = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
    validator = jsonschema.Draft201909Validator(schema)
    assert [error.message for error in validator.iter_errors(compose)] == []
    parsed = PyCompose.from_yaml(yaml.safe_dump(compose))
    parsed.validate()


def test_default_and_gpu_services(compose: dict[str, Any]) -> None:
    services = compose["services"]
    gpu = {name for name, service in services.items() if "gpu" in service.get("profiles", [])}
    assert gpu == {"vllm", "worker-gpu"}
    assert set(services) - gpu == {
        "postgres",
        "valkey",
        "migrate",
        "gateway",
        "worker",
        "sweeper",
    }


def test_images_are_built_from_targets_that_exist(compose: dict[str, Any]) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for service in compose["services"].values():
        if "build" in service:
            assert f" AS {service['build']['target']}\n" in dockerfile
    gateway = dockerfile.split(" AS gateway\n")[1].split("\nFROM")[0]
    assert "worker" not in gateway, "no numerics in the gateway image"
    assert dockerfile.count("USER 10001:10001") == 2
