"""Inputs by URI and webhooks through the real processes of `datassay-server up`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from datassay import verify_webhook

from tests.toys.up import start, stop
from tests.web import Answer, Request, serve_web

pytestmark = pytest.mark.system


def test_a_local_file_is_read_and_the_end_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASSAY_OUTBOUND_ALLOW", '["127.0.0.1"]')
    root = tmp_path / "inputs"
    root.mkdir()
    (root / "a.txt").write_text("from here")
    told = threading.Event()
    with serve_web() as web:

        def hook(_: Request) -> Answer:
            told.set()
            return Answer(204)

        web.answers["/hook"] = hook
        up = start(folder, arguments=["--input-root", str(root)])
        with up.client() as client:
            endpoint = client.webhooks.create(f"{web.url}/hook")
            spec = {"action": "read", "input": f"file://{root}/a.txt"}
            job = client.jobs.create("toy", spec).wait(timeout=60)
            assert job.result().data["text"] == "from here"
            with pytest.raises(Exception, match="rule: source"):
                client.jobs.create("toy", {"action": "read", "input": "https://example.org/x"})
            assert told.wait(60)
        output = stop(up)
        assert up.process.returncode == 0, output
    (request,) = web.requests
    assert endpoint.secret is not None
    message = verify_webhook(request.body, request.headers, endpoint.secret)
    assert (message.type, message.data["id"]) == ("job.succeeded", job.id)
