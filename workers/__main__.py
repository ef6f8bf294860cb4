"""`python -m workers worker|sweeper`: the processes that `datassay-server` starts."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from infra import metrics
from infra.broker import RESOURCES, Broker, create_celery
from infra.logs import configure_logging
from infra.settings import Settings
from models.database import sync_engine, sync_sessions


def main(argv: list[str] | None = None) -> int:
    """Run one of the processes until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m workers")
    commands = parser.add_subparsers(dest="command", required=True)
    worker = commands.add_parser("worker", help="run jobs")
    worker.add_argument("--queues", default=",".join(RESOURCES), help="comma-separated")
    worker.add_argument("--alive-file", type=Path, help="touched every 2 s, for liveness probes")
    commands.add_parser("sweeper", help="repair and clean up")
    args = parser.parse_args(argv)
    settings = Settings()
    configure_logging(settings)
    metrics.serve(settings)
    if args.command == "sweeper":
        return _sweep(settings)
    queues = args.queues.split(",")
    if unknown := set(queues) - set(RESOURCES):
        parser.error(f"unknown queues {sorted(unknown)}; known: {', '.join(RESOURCES)}")
    from workers.worker import run_worker

    run_worker(settings, queues, args.alive_file)
    return 0


def _sweep(settings: Settings) -> int:
    from workers.sweeper import Sweeper
    from workers.webhook_sender import WebhookSender

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sessions = sync_sessions(sync_engine(settings, "datassay-sweeper"))
    broker = Broker(create_celery(settings))
    # A thread of its own: a slow receiver must not hold up leases.
    sender = threading.Thread(target=WebhookSender(settings, sessions).run, args=(stop,))
    sender.start()
    Sweeper(settings, sessions, broker).run(stop)
    sender.join()
    broker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
