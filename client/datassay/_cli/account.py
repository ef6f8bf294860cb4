"""`datassay models`, `keys` and `doctor`."""

from __future__ import annotations

import math
from argparse import Namespace
from typing import Any

from datassay._cli.jobs import Session, UsageError, note, write_json, write_lines
from datassay.errors import ConnectionFailed, DatassayError


class UnhealthyError(DatassayError):
    """Something that `doctor` looked at does not work; it was printed."""


def add_arguments(add: Any) -> None:
    """The commands and their arguments."""
    add("models", list_models, "list the models that specs may name")
    add("doctor", doctor, "check the address, the key and the service")
    keys = add("keys", list_keys, "make, list and revoke API keys")
    action = type(add)(keys.add_subparsers(metavar="ACTION"))
    create = action("create", create_key, "make a key and print its token, this once")
    create.add_argument("name", metavar="NAME", help="what the key is called")
    create.add_argument(
        "--scope",
        action="append",
        metavar="SCOPE",
        help="repeatable, such as jobs:read (default: all but admin)",
    )
    create.add_argument("--days", type=float, metavar="N", help="until it expires; default: never")
    action("list", list_keys, "list the keys")
    action("revoke", revoke_key, "end a key at once").add_argument("id", metavar="ID")


def list_models(session: Session, args: Namespace) -> None:
    """List the models that specs may name."""
    models = session.client.models()
    if session.as_json:
        write_json(models)
    elif not models:
        note("The operator has declared no models.")
    else:
        from datassay._cli.display import print_rows

        rows = [(m.name, m.runs, m.revision or "", m.dtype or "") for m in models]
        print_rows(("name", "runs on a", "revision", "dtype"), rows)


_SCOPES = (
    "jobs:read",
    "jobs:write",
    "jobs:delete",
    "files:read",
    "files:write",
    "usage:read",
    "webhooks:read",
    "webhooks:write",
)


def create_key(session: Session, args: Namespace) -> None:
    """Make an API key."""
    if args.days is not None and not 0 < args.days < math.inf:
        raise UsageError(f"--days {args.days:g}: a number above 0 is expected")
    seconds = None if args.days is None else 86_400 * args.days
    key = session.client.keys.create(args.name, args.scope or _SCOPES, expires_in=seconds)
    if session.as_json:
        write_json(key)
    else:
        note(f"{key.id}; the token is shown this once")
        write_lines([key.token])


def list_keys(session: Session, args: Namespace) -> None:
    """List API keys."""
    keys = list(session.client.keys.list())
    if session.as_json:
        write_json(keys)
        return
    from datassay._cli.display import print_rows

    def state(key: Any) -> str:
        if key.revoked_at is not None:
            return "revoked"
        return "live" if key.expires_at is None else f"until {key.expires_at:%Y-%m-%d}"

    rows = [(key.id, key.name, state(key), ",".join(key.scopes)) for key in keys]
    print_rows(("id", "name", "state", "scopes"), rows)


def revoke_key(session: Session, args: Namespace) -> None:
    """End an API key."""
    session.client.keys.revoke(args.id)
    note(f"{args.id} is revoked")


def doctor(session: Session, args: Namespace) -> None:
    """Check address, key and service, and say what to do about what fails."""
    client, findings = session.client, []
    address = client.base_url

    def finding(ok: bool, subject: str, text: str) -> None:
        findings.append({"ok": ok, "subject": subject, "text": text})

    try:
        ready = client.ready()
        text = f"{address}: {ready.status}; database {ready.database}, broker {ready.broker}"
        finding(ready.status != "unavailable", "service", text)
    except ConnectionFailed as error:
        cure = "is it running (`datassay-server up`), and is --url or DATASSAY_URL right?"
        finding(False, "service", f"nobody answers at {address} ({error}); {cure}")
    except DatassayError as error:
        finding(False, "service", f"{address} does not answer as a Datassay service: {error}")
    if findings[-1]["ok"]:
        try:
            me = client.me()
            finding(True, "key", f"{me.key.name} of tenant {me.tenant}: {', '.join(me.key.scopes)}")
        except DatassayError as error:
            cure = "give one by --api-key, DATASSAY_API_KEY, DATASSAY_API_KEY_FILE or --data-dir"
            finding(False, "key", f"{error}; {cure}")
        try:
            types = client.job_types.list()
            finding(bool(types), "job types", f"{len(types)}; `datassay types` lists them")
        except DatassayError as error:
            finding(False, "job types", str(error))
    if session.as_json:
        write_json(findings)
    else:
        write_lines(
            f"{'ok  ' if one['ok'] else 'FAIL'} {one['subject']:<10} {one['text']}"
            for one in findings
        )
    if not all(one["ok"] for one in findings):
        raise UnhealthyError("something does not work")
