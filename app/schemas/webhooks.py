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
    description: WebhookText = Field("", description="Your own note about the endpoint.")


class WebhookChange(BaseModel):
    """What to change of an endpoint; fields left out stay."""

    model_config = ConfigDict(extra="forbid")

    url: WebhookUrl | None = Field(
        None, description="A public https URL (port 443 or 8443), in place of the old one."
    )
    events: list[WebhookEvent] | None = Field(
        None, min_length=1, max_length=16, description="Which events to send from now on."
    )
    description: WebhookText | None = Field(None, description="Your own note about the endpoint.")
    state: Literal["ACTIVE", "DISABLED"] | None = Field(
        None,
        description="`DISABLED` stops messages; `ACTIVE` sends them again and forgets earlier "
        "failures.",
    )


class SecretRotation(BaseModel):
    """How the old secret goes."""

    model_config = ConfigDict(extra="forbid")

    overlap_seconds: float = Field(
        86400.0, ge=0, le=604800, description="So long the old secret signs too; default: a day."
    )


class WebhookEndpoint(Wire):
    """A URL that is notified when jobs end."""

    id: str = Field(
        examples=["whe_019a3c5e7d1f7a2b8c4d5e6f70819203"], description="Id of the endpoint."
    )
    url: str = Field(description="Where messages are sent.")
    events: list[str] = Field(description="Events that are sent.")
    description: str = Field(description="Its owner's note.")
    state: Literal["ACTIVE", "DISABLED"] = Field(
        description="`ACTIVE`: messages are sent; `DISABLED`: none is."
    )
    disabled_reason: str | None = Field(description="Why it is disabled; null while it is active.")
    failing_since: AwareDatetime | None = Field(
        description="First failure after which nothing was delivered."
    )
    old_until: AwareDatetime | None = Field(description="End of the old secret's overlap.")
    created_at: AwareDatetime = Field(description="When the endpoint was registered (UTC).")


class NewWebhookEndpoint(WebhookEndpoint):
    """An endpoint with its secret, which is shown this once."""

    secret: str = Field(description="`whsec_...`; verifies the signatures of messages.")


class WebhookDelivery(Wire):
    """A message to an endpoint."""

    id: str = Field(description="The `webhook-id` of every attempt.")
    endpoint_id: str = Field(description="Id of the endpoint.")
    job_id: str | None = Field(
        description="Id of the job that the message tells of; null for a test message."
    )
    type: str = Field(
        examples=["job.succeeded"],
        description="What the message tells of; a test message is of type `webhook.test`.",
    )
    state: Literal["PENDING", "DELIVERED", "FAILED"] = Field(
        description="`PENDING`: it will be sent, perhaps again; `DELIVERED`: the endpoint took "
        "it; `FAILED`: given up, unless it is replayed."
    )
    attempts: int = Field(description="How often it was sent, since it was last replayed.")
    status_code: int | None = Field(description="The endpoint's last answer.")
    error: str | None = Field(description="Why the last attempt failed.")
    created_at: AwareDatetime = Field(description="When the message was written (UTC).")
    last_attempt_at: AwareDatetime | None = Field(
        description="When it was last sent (UTC); null before the first attempt."
    )
    due_at: AwareDatetime = Field(description="Time of the next attempt while PENDING.")


class WebhookJob(Wire):
    """The job that a message tells of."""

    id: str = Field(description="Id of the job.")
    type: str = Field(description="Its job type.")
    state: JobState = Field(description="The state that it ended in.")
    links: dict[str, str] = Field(description="Paths of this service: `self`, `result`.")


class WebhookMessage(Wire):
    """The body of a message; fetch the job for more."""

    type: WebhookEvent = Field(description="How the job ended.")
    timestamp: AwareDatetime = Field(description="When the job ended.")
    data: WebhookJob = Field(description="The job that has ended.")
