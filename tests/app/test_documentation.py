"""What strangers read: `/`, `/docs`, the summaries, the models, the formats of references."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
from datassay import Client

from app.api import documentation
from methods.registry import load_registry
from tests.app.raw import problem

STORED = Path(__file__).parents[2] / "docs" / "openapi.json"
STATIC = Path(documentation.__file__).parents[1] / "static"


@pytest.fixture(scope="module")
def document() -> Any:
    return json.loads(STORED.read_text())


def test_every_operation_has_a_summary_in_words_and_a_known_tag(document: Any) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    summaries: list[str] = []
    for methods in document["paths"].values():
        for operation in methods.values():
            name = operation["operationId"]
            title = name.replace("_", " ").title()
            assert operation["summary"] != title, f"{name} has the summary of its function"
            assert set(operation["tags"]) <= tags
            summaries.append(operation["summary"])
    assert len(set(summaries)) == len(summaries), "two operations read alike"
    known = {op["operationId"] for ms in document["paths"].values() for op in ms.values()}
    assert set(documentation.SUMMARIES) <= known, "a summary of an operation that is gone"


def test_inputs_and_models_have_formats_of_their_own(document: Any) -> None:
    schemas = document["components"]["schemas"]
    found: dict[str, int] = {}

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("format"), str):
                found[value["format"]] = found.get(value["format"], 0) + 1
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(schemas)
    assert found["datassay-input"] > 10
    assert found["datassay-model"] > 3
    spec = load_registry()["score-hallucination"].spec.model_json_schema()
    assert {"type": "string", "format": "datassay-input"}.items() <= next(
        iter(spec["properties"]["input"]["anyOf"])
    ).items()


def test_the_front_door_says_what_this_is(gateway_url: str) -> None:
    said = httpx2.get(gateway_url).json()
    assert said["service"] == "datassay"
    for path in (said["docs"], said["openapi"], said["job_types"]):
        assert httpx2.get(gateway_url + path).status_code == 200
    page = httpx2.get(gateway_url, headers={"Accept": "text/html"})
    assert "score-hallucination" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<script" not in page.text


def test_docs_come_from_here_under_a_policy(gateway_url: str) -> None:
    page = httpx2.get(f"{gateway_url}/docs")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 5
    for link in links:
        if link == "data:,":
            continue
        assert link.startswith("/docs/")
        asset = httpx2.get(gateway_url + link)
        assert asset.status_code == 200
        assert asset.headers["x-content-type-options"] == "nosniff"
    problem(httpx2.get(f"{gateway_url}/docs/..%2fmain.py"), 404, "not-found")
    problem(httpx2.get(f"{gateway_url}/docs/vendor"), 404, "not-found")


def test_the_vendored_assets_are_those_of_the_readme() -> None:
    vendor = STATIC / "vendor"
    rows = re.findall(r"\| (\S+) \| `(\w{64})` \|", (vendor / "README.md").read_text())
    assert len(rows) == 2
    for name, digest in rows:
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == digest
    assert (vendor / "LICENSE.swagger-ui").is_file()


def test_models_are_listed_without_where_they_lie(api: Client, gateway_url: str) -> None:
    assert httpx2.get(f"{gateway_url}/v1/models").status_code == 401
    models = api.models()
    assert models
    assert {model.runs for model in models} <= {"worker", "server"}
    text = " ".join(model.model_dump_json() for model in models)
    assert "/" not in text
