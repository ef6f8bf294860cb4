"""What goes over the wire about webhooks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.schemas.jobs import Wire
from models.states import JobState

WebhookEvent = Literal["job.cancelled", "job.expired", "job.failed", "job.succeeded"]
WebhookUrl = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
WebhookText = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00]*$")]


class WebhookCreate(BaseModel):
    """An endpoint to notify when jobs end."""

    model_config = ConfigDict(extra="forbid")

    url: WebhookUrl = Field(
        description="A public https URL (port 443 or 8443); redirects are not followed.",
        examples=["https://example.org/datassay"],
    )
    events: list[WebhookEvent] = Field(
        ["job.cancelled", "job.expired", "job.failed", "job.succeeded"],
        min_length=1,
        max_length=16,
        description="Which events to send; default: all.",
    )
    description: WebhookText = ""


class WebhookChange(BaseModel):
    """What to change of an endpoint; fields left out stay."""

    model_config = ConfigDict(extra="forbid")

    url: WebhookUrl | None = None
    events: list[WebhookEvent] | None = Field(None, min_length=1, max_length=16)
    description: WebhookText | None = None
    state: Literal["ACTIVE", "DISABLED"] | None = None


class SecretRotation(BaseModel):
    """How the old secret goes."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: float = Field(
        86400.0, ge=0, le=604800, description="So long the old secret signs too; default: a day."
    )


class WebhookEndpoint(Wire):
    """A URL that is notified when jobs end."""

    id: str = Field(examples=["whe_019a3c5e7d1f7a2b8c4d5e6f70819203"])
    url: str
    events: list[str]
    description: str
    state: Literal["ACTIVE", "DISABLED"]
    disabled_reason: str | None
    failing_since: AwareDatetime | None = Field(
        description="First failure after which nothing was delivered."
    )
    old_until: AwareDatetime | None = Field(description="End of the old secret's overlap.")
    created_at: AwareDatetime


class NewWebhookEndpoint(WebhookEndpoint):
    """An endpoint with its secret, which is shown this once."""

    secret: str = Field(description="`whsec_...`; verifies the signatures of messages.")


class WebhookDelivery(Wire):
    """A message to an endpoint."""

    id: str = Field(description="The `webhook-id` of every attempt.")
    endpoint_id: str
    job_id: str | None
    type: str = Field(examples=["job.succeeded"])
    state: Literal["PENDING", "DELIVERED", "FAILED"]
    attempts: int
    status_code: int | None = Field(description="The endpoint's last answer.")
    error: str | None = Field(description="Why the last attempt failed.")
    created_at: AwareDatetime
    last_attempt_at: AwareDatetime | None
    due_at: AwareDatetime = Field(description="Time of the next attempt while PENDING.")


class WebhookJob(Wire):
    """The job that a message tells of."""

    id: str
    type: str
    state: JobState
    links: dict[str, str] = Field(description="Paths of this service: `self`, `result`.")


class WebhookMessage(Wire):
    """The body of a message; fetch the job for more."""

    type: WebhookEvent
    timestamp: AwareDatetime = Field(description="When the job ended.")
    data: WebhookJob
