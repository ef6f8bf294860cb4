"""The receiver that docs/webhooks.md shows, run as it stands, gets a real message."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from datassay import Client
from sqlalchemy import Engine

from infra.settings import Settings
from models.database import sync_engine, sync_sessions
from models.queries.webhook_deliveries import RETRY_AFTER
from tests.services import Workplace
from workers.webhook_sender import WebhookSender

PAGE = (Path(__file__).parent.parent / "docs" / "webhooks.md").read_text()


@pytest.fixture
def sender(service_settings: Settings, engine: Engine) -> Iterator[WebhookSender]:
    own = sync_engine(service_settings, "test-sender")
    yield WebhookSender(service_settings, sync_sessions(own))
    own.dispose()


def test_the_receiver_of_the_page(
    api: Client, workplace: Workplace, sender: WebhookSender, tmp_path: Path
) -> None:
    (code,) = re.findall(r"<!-- receiver -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = api.webhooks.create(f"http://127.0.0.1:{port}/")
    job = api.jobs.create("toy", {})
    workplace.run()
    program = tmp_path / "receiver.py"
    program.write_text(
        code.replace("whsec_...", str(endpoint.secret)).replace(
            '("0.0.0.0", 8080)', f'("127.0.0.1", {port})'
        )
    )
    receiver = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE)
    try:
        _wait_for(port, receiver)
        assert sender.send_due() == 1
        (delivery,) = api.webhooks.deliveries(endpoint.id)
        assert delivery.state == "DELIVERED"
        # The same message again is taken and not acted upon; one with a wrong secret is not taken.
        api.webhooks.replay(endpoint.id, delivery.id)
        assert sender.send_due() == 1
        api.webhooks.rotate_secret(endpoint.id, overlap=0)
        test = api.webhooks.test(endpoint.id)
        assert sender.send_due() == 1
        states = {d.id: (d.state, d.status_code) for d in api.webhooks.deliveries(endpoint.id)}
        assert states == {delivery.id: ("DELIVERED", 204), test.id: ("PENDING", 400)}
    finally:
        receiver.kill()
        output, _ = receiver.communicate()
    assert output.decode() == f"job.succeeded {job.id}\n"


def _wait_for(port: int, receiver: subprocess.Popen[bytes]) -> None:
    while receiver.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the receiver did not start")


def test_the_published_schedule_is_the_one_that_is_used() -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    (row,) = re.findall(r"\| after the one before \| at once \| (.*) \|", PAGE)
    waits = [int(n) * units[u] for n, u in (cell.split() for cell in row.split(" | "))]
    assert tuple(waits) == RETRY_AFTER
