"""`verify_webhook`: the reference vector, and everything that must not pass."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from datassay import WebhookVerificationFailed, verify_webhook
from hypothesis import given
from hypothesis import strategies as st

from infra.webhook_secrets import derive, shown, signature

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_764_000_000
BODY = b'{"type": "job.succeeded", "timestamp": "2026-11-24T00:00:00Z", "data": {"id": "job_1"}}'


def sign(message_id: str, timestamp: str, body: bytes, secret: str = SECRET) -> str:
    """Written down from the standard, apart from both implementations."""
    key = base64.b64decode(secret.split("_")[1])
    digest = hmac.digest(key, b".".join([message_id.encode(), timestamp.encode(), body]), "sha256")
    return "v1," + base64.b64encode(digest).decode()


def headers(**changes: str) -> dict[str, str]:
    given = {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(NOW)}
    given["Webhook-Signature"] = sign("msg_1", str(NOW), BODY)
    return given | {name.replace("_", "-"): value for name, value in changes.items()}


def test_the_vector_of_standard_webhooks() -> None:
    """Of the reference implementations; its body is no message of ours, so only bytes compare."""
    secret, message_id = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    body = b'{"test": 2432232314}'
    key = base64.b64decode(secret)
    assert signature([key], message_id, 1614265330, body) == expected
    found = {
        "webhook-id": message_id,
        "webhook-timestamp": "1614265330",
        "webhook-signature": expected,
    }
    with pytest.raises(WebhookVerificationFailed, match="no message of this service"):
        verify_webhook(body, found, f"whsec_{secret}", now=1614265330)


def test_a_message_comes_back_parsed() -> None:
    for body in (BODY, BODY.decode()):
        message = verify_webhook(body, headers(), SECRET, now=NOW + 300)
        assert (message.type, message.data["id"]) == ("job.succeeded", "job_1")


def test_either_secret_of_an_overlap_fits() -> None:
    other = shown(hashlib.sha256(b"other").digest())
    both = f"{sign('msg_1', str(NOW), BODY, other)} {sign('msg_1', str(NOW), BODY)}"
    for secret in (SECRET, other, [other, SECRET]):
        verify_webhook(BODY, headers(Webhook_Signature=both), secret, now=NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Webhook_Id": "msg_2"}, "no signature fits"),
        ({"Webhook_Timestamp": str(NOW + 1)}, "no signature fits"),
        ({"Webhook_Timestamp": str(NOW - 301)}, "too old, or from the future"),
        ({"Webhook_Timestamp": str(NOW + 301)}, "too old, or from the future"),
        ({"Webhook_Timestamp": "9" * 5000}, "too old, or from the future"),
        ({"Webhook_Timestamp": "soon"}, "no number"),
        ({"Webhook_Timestamp": "\u0661"}, "no number"),
        ({"Webhook_Timestamp": "-1"}, "no number"),
        ({"Webhook_Signature": ""}, "no signature fits"),
        ({"Webhook_Signature": "v1,"}, "no signature fits"),
        ({"Webhook_Signature": "v1,####"}, "no signature fits"),
        ({"Webhook_Signature": sign("msg_1", str(NOW), BODY).replace("v1,", "v1a,")}, "no sig"),
        ({"Webhook_Signature": sign("msg_1", str(NOW), BODY)[3:]}, "no signature fits"),
        ({"Webhook_Signature": sign("msg_1", str(NOW), b"other")}, "no signature fits"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(WebhookVerificationFailed, match=reason):
        verify_webhook(BODY, headers(**changes), SECRET, now=NOW)


@pytest.mark.parametrize("name", ["Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"])
def test_a_missing_header_is_named(name: str) -> None:
    found = headers()
    del found[name]
    with pytest.raises(WebhookVerificationFailed, match=f"{name.lower()} is missing"):
        verify_webhook(BODY, found, SECRET, now=NOW)


@given(st.binary(min_size=1, max_size=40), st.integers(0, len(BODY) - 1))
def test_no_change_of_the_body_passes(noise: bytes, place: int) -> None:
    changed = BODY[:place] + noise + BODY[place + len(noise) :]
    if changed != BODY:
        with pytest.raises(WebhookVerificationFailed):
            verify_webhook(changed, headers(), SECRET, now=NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_?", "whsec_\u00e4"])
def test_a_malformed_secret_is_the_receivers_own_fault(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        verify_webhook(BODY, headers(), secret, now=NOW)


def test_secrets_differ_by_endpoint_and_salt_and_have_the_standards_length() -> None:
    found = {derive(b"service", e, s) for e in ("whe_1", "whe_2") for s in ("a", "b")}
    assert len(found) == 4
    assert {len(secret) for secret in found} == {32}
