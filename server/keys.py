"""Creating, listing and revoking API keys, from the operator's side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from infra.api_keys import SCOPES, hint, new_token, token_digest
from infra.ids import new_id
from infra.settings import Settings
from models.database import sync_engine, sync_sessions
from models.queries import accounts


@contextmanager
def operator_session(settings: Settings) -> Iterator[Session]:
    """One transaction of an operator's command."""
    engine = sync_engine(settings, "datassay-keys")
    try:
        with sync_sessions(engine).begin() as session:
            yield session
    finally:
        engine.dispose()


@dataclass(frozen=True)
class KeyInfo:
    """A key as lists show it; the token itself is not stored."""

    id: str
    tenant: str
    name: str
    hint: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    status: str


def create(
    settings: Settings,
    tenant: str,
    name: str,
    scopes: Sequence[str],
    expires_in: timedelta | None = None,
) -> str:
    """Create a key, and its tenant unless it exists; returns the token, this once.

    Raises:
        ValueError: an unknown scope, or no secret is set.
    """
    if unknown := set(scopes) - set(SCOPES):
        raise ValueError(f"unknown scopes {sorted(unknown)}; known: {', '.join(SCOPES)}")
    token = new_token()
    row = {
        "id": new_id("key"),
        "name": name,
        "hint": hint(token),
        "digest": token_digest(settings.require_secret(), token),
        "scopes": list(scopes),
        "expires_at": None if expires_in is None else datetime.now(UTC) + expires_in,
    }
    with operator_session(settings) as session:
        session.execute(accounts.ensure_tenant(new_id("ten"), tenant))
        tenant_id = session.execute(accounts.tenant_named(tenant)).scalar_one()
        session.execute(accounts.add_key({**row, "tenant_id": tenant_id}))
        _note(settings, session, tenant_id, "key.create", row["id"])
    return token


def list_all(settings: Settings) -> list[KeyInfo]:
    """Every key of every tenant, oldest first."""
    with operator_session(settings) as session:
        rows = session.execute(accounts.keys()).all()
    now = datetime.now(UTC)
    return [
        KeyInfo(
            id=key.id,
            tenant=tenant,
            name=key.name,
            hint=key.hint,
            scopes=list(key.scopes),
            created_at=key.created_at,
            last_used_at=key.last_used_at,
            status="revoked"
            if key.revoked_at
            else "expired"
            if key.expires_at and key.expires_at < now
            else "active",
        )
        for key, tenant in rows
    ]


def revoke(settings: Settings, key_id: str) -> bool:
    """Revoke a key at once; False when there is no such live key."""
    with operator_session(settings) as session:
        row = session.execute(accounts.revoke_key(key_id)).first()
        if row is not None:
            _note(settings, session, row.tenant_id, "key.revoke", key_id)
    return row is not None


def _note(
    settings: Settings, session: Session, tenant_id: str, action: str, object_id: object
) -> None:
    row = {"tenant_id": tenant_id, "action": action, "object_id": object_id}
    session.execute(accounts.add_audit(row, settings.audit_retention))
