"""The compose file fits its schema, and says what the README says of it.

No Docker engine runs here; `compose-spec.json` is the published schema (Apache-2.0).
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from compose_spec import PyCompose

from methods.jobtype import EXTRAS
from methods.registry import load_registry

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
    assert dockerfile.count("USER 10001:10001") == 3


@pytest.mark.parametrize("target", ["worker", "worker-gpu"])
def test_worker_images_bring_what_the_job_types_need(target: str) -> None:
    section = (ROOT / "Dockerfile").read_text().split(f" AS {target}\n")[1].split("\nFROM")[0]
    [listed] = re.findall(r"'\.\[([a-z0-9,]+)\]'", section)
    installed = set(listed.split(","))
    for job_type in load_registry().values():
        if job_type.name.startswith("toy"):
            continue  # a test before this one has added them to the methods of this process
        needed = {EXTRAS[module] for module in job_type.requires}
        assert needed <= installed, f"{job_type.name} needs {needed - installed}"
    assert {"parquet", "datasets"} <= installed, "formats that requests may name"


def test_extras_bring_the_modules_that_they_are_said_to() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    distributions = {"PIL": "pillow", "sklearn": "scikit-learn"}
    for module, extra in EXTRAS.items():
        names = {re.split(r"[><=\[]", text)[0] for text in extras[extra]}
        assert distributions.get(module, module) in names


def test_the_gpu_worker_is_an_image_of_its_own(compose: dict[str, Any]) -> None:
    gpu, cpu = compose["services"]["worker-gpu"], compose["services"]["worker"]
    assert gpu["build"]["target"] == "worker-gpu"
    assert gpu["image"] != cpu["image"]
