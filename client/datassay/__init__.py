"""Client of the Datassay job service.

    from datassay import Client

    with Client() as client:
        job = client.jobs.create("score-hallucination", {"items": items})
        result = job.wait().result()
        result.to_html("report.html")

`AsyncClient` has the same shape. Exceptions descend from `DatassayError`; the module
`datassay.errors` draws the tree.
"""

from datassay import errors
from datassay._version import __version__
from datassay.artifacts import Artifact, AsyncArtifact
from datassay.async_client import AsyncClient
from datassay.async_jobs import AsyncJob
from datassay.blocks import Figure
from datassay.calls import JobFilter, JobOptions
from datassay.client import Client
from datassay.errors import (
    APIError,
    ConnectionFailed,
    DatassayError,
    InvalidSpec,
    JobCancelled,
    JobEnded,
    JobExpired,
    JobFailed,
    NotFound,
    QuotaExceeded,
    RateLimited,
    WaitTimeout,
    WebhookVerificationFailed,
)
from datassay.jobs import Job
from datassay.models import (
    ApiKey,
    Attempt,
    AuditRecord,
    Event,
    File,
    JobCache,
    JobError,
    JobState,
    JobType,
    Me,
    Metrics,
    MetricSeries,
    Model,
    NewApiKey,
    PrivacyRelease,
    Problem,
    Progress,
    Quota,
    Readiness,
    Usage,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookMessage,
)
from datassay.result import AsyncResult, Result
from datassay.signatures import verify_webhook

__all__ = [
    "APIError",
    "ApiKey",
    "Artifact",
    "AsyncArtifact",
    "AsyncClient",
    "AsyncJob",
    "AsyncResult",
    "Attempt",
    "AuditRecord",
    "Client",
    "ConnectionFailed",
    "DatassayError",
    "Event",
    "Figure",
    "File",
    "InvalidSpec",
    "Job",
    "JobCache",
    "JobCancelled",
    "JobEnded",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobFilter",
    "JobOptions",
    "JobState",
    "JobType",
    "Me",
    "MetricSeries",
    "Metrics",
    "Model",
    "NewApiKey",
    "NotFound",
    "PrivacyRelease",
    "Problem",
    "Progress",
    "Quota",
    "QuotaExceeded",
    "RateLimited",
    "Readiness",
    "Result",
    "Usage",
    "WaitTimeout",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookMessage",
    "WebhookVerificationFailed",
    "__version__",
    "errors",
    "verify_webhook",
]
