"""The broker: a Celery message says «there is work». It brings speed; the row brings safety."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import OperationalError

from infra.settings import Settings

TASK = "datassay.run_job"
RESOURCES = ("cpu", "gpu", "llm")


def create_celery(settings: Settings) -> Celery:
    """A Celery app with the settings that both ends must share.

    Early acknowledgement and no result backend: with late ack on Redis a task that outlives the
    visibility timeout is run again and again, and the truth is in Postgres anyway.
    """
    celery = Celery("datassay", broker=settings.broker_url.get_secret_value(), set_as_current=False)
    celery.conf.update(
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_queues=[Queue(name) for name in RESOURCES],
        task_create_missing_queues=False,
        task_default_queue="cpu",
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        # Without it a busy worker hoards one more message while others idle.
        worker_disable_prefetch=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": 3600,
            "socket_timeout": 10,
            "socket_connect_timeout": 1,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": "datassay:",
            "max_retries": 0,
        },
    )
    return celery


class Broker:
    """Wakes a worker, best effort."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def publish(self, job_id: str, resource: str) -> bool:
        """Whether the broker took the message. Blocks for about a second when it is down."""
        options: dict[str, Any] = {"queue": resource, "retry": False, "ignore_result": True}
        try:
            self._celery.send_task(TASK, kwargs={"job_id": job_id}, **options)
        except (OperationalError, OSError):
            return False
        return True

    def is_reachable(self) -> bool:
        """Whether the broker can be reached."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=1.0)
        except (OperationalError, OSError):
            return False
        return True

    def close(self) -> None:
        """Close the pooled connections."""
        self._celery.close()
