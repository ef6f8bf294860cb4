"""`datassay webhooks`: endpoints that are notified when jobs end."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any, cast

from datassay._cli.jobs import Session, note, write_json, write_lines
from datassay.models import WebhookDelivery, WebhookEndpoint
from datassay.webhook_calls import EndpointChange

_EVENTS = ["job.cancelled", "job.expired", "job.failed", "job.succeeded"]


def add_arguments(add: Any) -> None:
    """The commands below `webhooks`."""
    webhooks = add("webhooks", list_endpoints, "URLs that are notified when jobs end")
    actions = type(add)(webhooks.add_subparsers(metavar="ACTION", required=True))

    def action(name: str, run: Callable[[Session, Namespace], None], text: str) -> ArgumentParser:
        parser: ArgumentParser = actions(name, run, text)
        if name not in {"create", "list"}:
            parser.add_argument("id", metavar="ID", help="whe_...")
        return parser

    create = action("create", create_endpoint, "register a URL and print its secret, this once")
    create.add_argument("url", metavar="URL")
    action("list", list_endpoints, "list endpoints")
    action("show", show_endpoint, "show an endpoint")
    change = action("change", change_endpoint, "change an endpoint")
    change.add_argument("--to", dest="target", metavar="URL", help="another URL")
    change.add_argument("--state", choices=["ACTIVE", "DISABLED"])
    for parser in (create, change):
        parser.add_argument("--event", action="append", choices=_EVENTS, help="default: all")
        parser.add_argument("--description", metavar="TEXT")
    rotate = action("rotate", rotate_secret, "make a new secret and print it")
    rotate.add_argument(
        "--overlap",
        type=float,
        default=86400.0,
        metavar="SECONDS",
        help="the old one signs too for so long; default: a day",
    )
    action("test", test_endpoint, "send a test message")
    deliveries = action("deliveries", list_deliveries, "list what was sent")
    deliveries.add_argument("--state", choices=["PENDING", "DELIVERED", "FAILED"])
    deliveries.add_argument("--limit", type=int, default=20, metavar="N", help="default: 20")
    replay = action("replay", replay_delivery, "send a message again")
    replay.add_argument("delivery", metavar="DELIVERY", help="msg_...")
    action("delete", delete_endpoint, "delete an endpoint")


def create_endpoint(session: Session, args: Namespace) -> None:
    """Register a URL."""
    description = args.description or ""
    made = session.client.webhooks.create(args.url, events=args.event, description=description)
    _tell_secret(session, made)


def list_endpoints(session: Session, args: Namespace) -> None:
    """List endpoints."""
    endpoints = list(session.client.webhooks.list())
    if session.as_json:
        write_json(endpoints)
    else:
        write_lines(_line(endpoint) for endpoint in endpoints)


def show_endpoint(session: Session, args: Namespace) -> None:
    """Show an endpoint."""
    _tell(session, session.client.webhooks.get(args.id))


def change_endpoint(session: Session, args: Namespace) -> None:
    """Change an endpoint."""
    requested = {"url": args.target, "state": args.state, "events": args.event}
    requested["description"] = args.description
    changes = {name: value for name, value in requested.items() if value is not None}
    _tell(session, session.client.webhooks.change(args.id, **cast(EndpointChange, changes)))


def rotate_secret(session: Session, args: Namespace) -> None:
    """Make a new secret."""
    _tell_secret(session, session.client.webhooks.rotate_secret(args.id, overlap=args.overlap))


def test_endpoint(session: Session, args: Namespace) -> None:
    """Send a test message."""
    _tell_delivery(session, session.client.webhooks.test(args.id))


def list_deliveries(session: Session, args: Namespace) -> None:
    """List deliveries."""
    listed = session.client.webhooks.deliveries(args.id, state=args.state, limit=args.limit)
    deliveries = list(listed)
    if session.as_json:
        write_json(deliveries)
    else:
        write_lines(_delivery_line(delivery) for delivery in deliveries)


def replay_delivery(session: Session, args: Namespace) -> None:
    """Send a message again."""
    _tell_delivery(session, session.client.webhooks.replay(args.id, args.delivery))


def delete_endpoint(session: Session, args: Namespace) -> None:
    """Delete an endpoint."""
    session.client.webhooks.delete(args.id)
    note(f"deleted {args.id}")


def _tell_secret(session: Session, made: WebhookEndpoint) -> None:
    if session.as_json:
        write_json(made)
        return
    note("the secret is shown this once:")
    write_lines([f"{made.id}  {made.secret}"])


def _tell(session: Session, endpoint: WebhookEndpoint) -> None:
    if session.as_json:
        write_json(endpoint)
    else:
        write_lines([_line(endpoint)])


def _tell_delivery(session: Session, delivery: WebhookDelivery) -> None:
    if session.as_json:
        write_json(delivery)
    else:
        write_lines([_delivery_line(delivery)])


def _line(endpoint: WebhookEndpoint) -> str:
    reason = f"  ({endpoint.disabled_reason})" if endpoint.disabled_reason else ""
    return f"{endpoint.id}  {endpoint.state}{reason}  {endpoint.url}  {','.join(endpoint.events)}"


def _delivery_line(delivery: WebhookDelivery) -> str:
    summary = f"{delivery.type}  {delivery.job_id or '-'}  {delivery.attempts} attempts"
    error = f"  {delivery.error}" if delivery.error else ""
    return f"{delivery.id}  {delivery.state}  {summary}{error}"
