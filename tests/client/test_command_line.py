"""Every documented command: where each of its values lands, and where the API key goes."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from datassay import Client
from datassay._cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "client/README.md", *sorted((ROOT / "docs").glob("*.md"))]
SERVICE = "http://service.test"
#: Every command line in our pages, and the arguments that the command must be called with.
DOCUMENTED: dict[str, dict[str, Any]] = {
    "datassay select-subset data.jsonl --budget 20% --feature trajectory=trajectories.npy": {
        "run": "select_subset",
        "data": "data.jsonl",
        "budget": "20%",
        "feature": ["trajectory=trajectories.npy"],
    },
    "datassay select-subset data.json --budget 20% --model my-proxy --images images.zip": {
        "run": "select_subset",
        "data": "data.json",
        "budget": "20%",
        "model": "my-proxy",
        "images": "images.zip",
    },
    "datassay select-subset data.jsonl --budget 20% --model my-proxy --prove": {
        "run": "select_subset",
        "data": "data.jsonl",
        "budget": "20%",
        "model": "my-proxy",
        "prove": "",
    },
    "datassay select-subset s3://sets/acme/rows.parquet "
    "--feature score=s3://sets/acme/loss.npz --budget 20%": {
        "run": "select_subset",
        "data": "s3://sets/acme/rows.parquet",
        "budget": "20%",
        "feature": ["score=s3://sets/acme/loss.npz"],
    },
    "datassay submit score-hallucination --input https://data.example.org/answers.jsonl": {
        "run": "submit",
        "type": "score-hallucination",
        "input": "https://data.example.org/answers.jsonl",
        "wait": False,
    },
    "datassay submit score-hallucination --input examples/qa-gemma.jsonl --wait": {
        "run": "submit",
        "type": "score-hallucination",
        "input": "examples/qa-gemma.jsonl",
        "wait": True,
    },
    "datassay submit score-hallucination --input answers.jsonl --set 'scorers=[\"snne\"]' --wait": {
        "run": "submit",
        "type": "score-hallucination",
        "input": "answers.jsonl",
        "set": ['scorers=["snne"]'],
        "wait": True,
    },
    "datassay files upload texts.csv": {"run": "upload", "paths": ["texts.csv"]},
    "datassay submit synthesize-text --spec spec.json --set texts.input=file_… --wait": {
        "run": "submit",
        "type": "synthesize-text",
        "spec": "spec.json",
        "set": ["texts.input=file_…"],
        "wait": True,
    },
    "datassay result job_… --html report.html": {
        "run": "result",
        "id": "job_…",
        "html": "report.html",
        "out": None,
    },
    "datassay submit score-hallucination --help": {
        "run": "submit",
        "type": "score-hallucination",
        "help": True,
    },
    "datassay list --type score-hallucination": {"run": "list_jobs", "type": "score-hallucination"},
    "datassay open job_…": {"run": "open_report", "id": "job_…", "link": False},
    "datassay open job_… --link": {"run": "open_report", "id": "job_…", "link": True},
    "datassay download job_… --out files": {"run": "download", "id": "job_…", "out": "files"},
    "datassay doctor": {"run": "doctor"},
    "datassay webhooks create https://example.org/datassay "
    "--event job.succeeded --event job.failed": {
        "run": "create_endpoint",
        "url": "https://example.org/datassay",
        "event": ["job.succeeded", "job.failed"],
    },
    "datassay webhooks deliveries whe_... --state FAILED": {
        "run": "list_deliveries",
        "id": "whe_...",
        "state": "FAILED",
    },
    "datassay webhooks replay whe_... msg_...": {
        "run": "replay_delivery",
        "id": "whe_...",
        "delivery": "msg_...",
    },
    "datassay webhooks change whe_... --state ACTIVE": {
        "run": "change_endpoint",
        "id": "whe_...",
        "state": "ACTIVE",
        "target": None,
    },
    "datassay webhooks test whe_...": {"run": "test_endpoint", "id": "whe_..."},
    "datassay webhooks rotate whe_... --overlap 86400": {
        "run": "rotate_secret",
        "id": "whe_...",
        "overlap": 86400.0,
    },
}


def documented() -> Iterator[str]:
    """Command lines of the pages: in blocks, and whole ones in a sentence."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"^(?: {4}|\$ )?(?:\.venv/bin/)?(datassay [a-z].*)$", text, re.M):
            yield line.strip()
        yield from re.findall(r"`(datassay [a-z-]+ [a-z-]+ [^`]+)`", text)


def test_every_documented_command_is_known_here() -> None:
    assert set(documented()) == set(DOCUMENTED)


@pytest.mark.parametrize("line", DOCUMENTED)
def test_each_value_of_a_documented_command_lands_where_it_belongs(line: str) -> None:
    argv = shlex.split(line)[1:]
    place = ["--url", SERVICE, "--api-key", "secret", "--json"]
    for words in ([*place, *argv], [*argv, *place]):
        parsed = vars(main.parser().parse_args(words))
        assert parsed.pop("run").__name__ == DOCUMENTED[line]["run"]
        assert (parsed["service_url"], parsed["service_key"]) == (SERVICE, "secret")
        assert parsed["as_json"] is True
        for name, value in DOCUMENTED[line].items():
            assert name == "run" or parsed[name] == value
    bare = main.parser().parse_args(argv)
    assert (bare.service_url, bare.service_key, bare.as_json) == (None, None, False)


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _parsers(below)


def test_no_argument_takes_the_place_of_another() -> None:
    """Neither within a command nor from the options that every command shares."""
    shared = {"service_url", "service_key", "as_json", "run"}
    for parser in _parsers(main.parser()):
        actions = [a for a in parser._actions if not isinstance(a, argparse._SubParsersAction)]
        places = [a.dest for a in actions]
        assert len(places) == len(set(places)), parser.prog
        own = {
            a.dest for a in actions if not {"--url", "--api-key", "--json"} & {*a.option_strings}
        }
        assert not own & shared, parser.prog


@pytest.mark.parametrize(
    "argv",
    [
        ["webhooks", "create", "https://receiver.test/hook"],
        ["webhooks", "change", "whe_1", "--to", "https://receiver.test/hook"],
        ["submit", "score-hallucination", "--input", "https://receiver.test/a.jsonl"],
        ["select-subset", "https://receiver.test/a.jsonl", "--budget", "5", "--no-wait"],
    ],
    ids=lambda argv: argv[0] + "-" + argv[1],
)
def test_the_key_goes_to_the_address_of_the_service_only(argv: list[str]) -> None:
    requests: list[httpx2.Request] = []

    def refuse(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        return httpx2.Response(404)

    connect = partial(Client, transport=httpx2.MockTransport(refuse))
    main.main(["--url", SERVICE, "--api-key", "secret", *argv], connect=connect)
    assert requests, "it asked the service"
    for request in requests:
        assert request.url.host == "service.test"
        assert request.headers["authorization"] == "Bearer secret"
