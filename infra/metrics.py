"""What Prometheus sees of a process; names and labels are stable.

No label is ever a tenant, a job or a path that a client chose: the number of series stays small.
"""

from __future__ import annotations

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from infra.settings import Settings

_log = structlog.get_logger(__name__)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SLOW = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 14400, 86400)

# The gateway's

HTTP_REQUEST_SECONDS = Histogram(
    "datassay_http_request_seconds",
    "Time to the last byte; a long poll waits on purpose.",
    ["route", "method", "status"],
    buckets=_FAST,
    registry=REGISTRY,
)

RATE_LIMITED = Counter(
    "datassay_rate_limited", "Requests refused by a bucket.", ["bucket"], registry=REGISTRY
)
RATE_LIMITER_FAILED_OPEN = Counter(
    "datassay_rate_limiter_failed_open",
    "Requests that passed because the broker did not answer.",
    registry=REGISTRY,
)
QUOTA_EXCEEDED = Counter(
    "datassay_quota_exceeded", "Requests refused by a quota.", ["what"], registry=REGISTRY
)
RESULT_CACHE = Counter(
    "datassay_result_cache",
    "Submissions that asked the result cache: hit, joined (an equal job is under way), miss.",
    ["outcome"],
    registry=REGISTRY,
)

# The worker's

JOB_QUEUE_SECONDS = Histogram(
    "datassay_job_queue_seconds",
    "From POST to the first start.",
    ["type"],
    buckets=_SLOW,
    registry=REGISTRY,
)
DISPATCH_LAG_SECONDS = Histogram(
    "datassay_dispatch_lag_seconds",
    "From dispatch to the start of a job; under a minute unless all workers are busy.",
    buckets=_FAST,
    registry=REGISTRY,
)
JOB_RUN_SECONDS = Histogram(
    "datassay_job_run_seconds",
    "Length of an attempt.",
    ["type"],
    buckets=_SLOW,
    registry=REGISTRY,
)
JOB_ATTEMPTS = Counter(
    "datassay_job_attempts",
    "Attempts that ended here, by the state they left the job in, or lost.",
    ["type", "outcome"],
    registry=REGISTRY,
)
LEASE_LOST = Counter(
    "datassay_lease_lost", "Attempts that found their lease gone.", registry=REGISTRY
)
FENCED_WRITES = Counter(
    "datassay_fenced_writes", "Writes of attempts that are not current.", registry=REGISTRY
)
WORKER_BUSY = Gauge("datassay_worker_busy", "1 while a job runs.", registry=REGISTRY)

# The sweeper's; with several sweepers every one shows the same: take the maximum

JOBS = Gauge("datassay_jobs", "Jobs that have not ended.", ["type", "state"], registry=REGISTRY)
OLDEST_QUEUED_SECONDS = Gauge(
    "datassay_oldest_queued_seconds",
    "Age of the oldest job that could start.",
    ["type"],
    registry=REGISTRY,
)
DISPATCH_PENDING = Gauge(
    "datassay_dispatch_pending", "Queued jobs that were not dispatched.", registry=REGISTRY
)
JOBS_RESCUED = Counter(
    "datassay_jobs_rescued",
    "Jobs rescued from an expired lease.",
    ["state"],
    registry=REGISTRY,
)
WEBHOOK_ATTEMPTS = Counter(
    "datassay_webhook_attempts", "Webhooks sent, by outcome.", ["outcome"], registry=REGISTRY
)
LAST_SWEEP = Gauge(
    "datassay_last_sweep_timestamp_seconds", "When the last sweep ended.", registry=REGISTRY
)


def serve(settings: Settings) -> None:
    """Serve the metrics of this process in a thread, where the settings say; else nowhere."""
    if settings.metrics_port is None:
        return
    try:
        start_http_server(settings.metrics_port, settings.metrics_host, REGISTRY)
    except OSError as error:
        # A service without metrics is better than none.
        _log.error("could not serve metrics", port=settings.metrics_port, error=str(error))
