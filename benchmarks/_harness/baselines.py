"""What the service is measured against: the same request, insert and publish without it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from benchmarks._harness.service_harness import ROOT, await_ready, free_port
from infra.broker import Broker, create_celery
from infra.settings import Settings

_BARE = """
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
class Body(BaseModel):
    spec: dict
class Answer(BaseModel):
    id: str
    state: str
app = FastAPI()
@app.get("/bare/{key}")
async def get(key: str) -> Answer:
    return Answer(id=key, state="QUEUED")
@app.post("/bare")
async def post(body: Body) -> Answer:
    return Answer(id="none", state="QUEUED")
uvicorn.run(app, host="127.0.0.1", port=%d, log_config=None, access_log=False)
"""


@contextmanager
def bare_endpoint() -> Iterator[int]:
    """The port of a FastAPI that validates, answers and does nothing else, by the same server."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _BARE % port], cwd=ROOT)
    try:
        await_ready(f"http://127.0.0.1:{port}", process, "/bare/x")
        yield port
    finally:
        process.terminate()
        process.wait()


def bare_insert(database: str, stack: ExitStack) -> Callable[[], None]:
    """One row and its commit, over a connection that is there already."""
    connection = stack.enter_context(psycopg.connect(database))
    connection.execute("CREATE TABLE bench (id bigserial PRIMARY KEY, body json)")
    connection.commit()

    def insert() -> None:
        connection.execute("INSERT INTO bench (body) VALUES (%s)", ('{"a": 1}',))
        connection.commit()

    return insert


def bare_publish(environment: dict[str, str]) -> Callable[[], Any]:
    """One message that no worker takes."""
    settings = Settings(broker_url=environment["DATASSAY_BROKER_URL"])
    broker = Broker(create_celery(settings))
    return lambda: broker.publish("job_none", "gpu")
