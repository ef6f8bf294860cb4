"""The `datassay-server` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy.exc import DBAPIError

from infra.api_keys import SCOPES
from infra.settings import Settings
from models import schema
from server import doctor, keys, tenants
from server.supervisor import Embedded

_DATA_DIR = Path(".datassay")
_LIMITS = ("max_queued_jobs", "max_running_jobs", "max_stored_bytes")


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(argv)
    try:
        if hasattr(args, "of_folder"):
            _use_folder(args.of_folder)
        return int(args.run(args))
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; the interpreter must not flush again.
        sys.stdout = None
        return 0
    except ValidationError as error:
        for fault in error.errors(include_url=False):
            name = "_".join(str(part) for part in fault["loc"]).upper()
            print(f"datassay-server: DATASSAY_{name}: {fault['msg']}", file=sys.stderr)
    except DBAPIError as error:
        print(f"datassay-server: {str(error.orig).strip()}", file=sys.stderr)
    except ValueError as error:
        print(f"datassay-server: {error}", file=sys.stderr)
    return 1


def _use_folder(folder: Path | None) -> None:
    """Take the settings of the service that `up` runs in a folder; those of the environment win."""
    if folder is None and "DATASSAY_DATABASE_URL" in os.environ:
        return
    file = (folder or _DATA_DIR) / "environment.json"
    try:
        settings = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        if folder is None:
            return
        raise ValueError(
            f"--data-dir {folder}: no service was started there ({error}); "
            "`datassay-server up --data-dir FOLDER` starts one"
        ) from error
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="datassay-server", description="Settings come from DATASSAY_... variables."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    up = commands.add_parser("up", help="run everything here, with embedded servers")
    up.add_argument("--data-dir", type=Path, default=_DATA_DIR)
    up.add_argument("--host", default="127.0.0.1")
    up.add_argument("--port", type=int, default=8765)
    up.add_argument("--workers", type=int, default=1)
    up.add_argument(
        "--metrics-port",
        type=int,
        help="of Prometheus metrics: the gateway's; the workers' and the sweeper's follow",
    )
    up.add_argument("--run-db-as", metavar="USER", help="as root: whom Postgres runs as")
    up.add_argument(
        "--input-root", type=Path, metavar="FOLDER", help="jobs may read files below it, by file://"
    )
    up.add_argument("--vllm", metavar="MODEL", help="also serve this folder or hub id by vLLM")
    up.add_argument(
        "--vllm-python", type=Path, help="of the environment that has vLLM (default: `make vllm`)"
    )
    up.add_argument(
        "--vllm-args",
        default="",
        help="further arguments of the vLLM server; with --enable-lora it also answers adapters "
        "that jobs made of the model NAME-weights",
    )
    up.set_defaults(run=_up)

    gateway = commands.add_parser("gateway", help="serve the API")
    gateway.add_argument("--host", default="127.0.0.1")
    gateway.add_argument("--port", type=int, default=8765)
    gateway.set_defaults(run=_gateway)

    worker = commands.add_parser("worker", help="run jobs")
    worker.add_argument("--queues", default="cpu,gpu,llm", help="of cpu, gpu, llm")
    worker.add_argument("--alive-file", type=Path, help="touched every 2 s, for liveness probes")
    worker.set_defaults(run=_worker)

    sweeper = commands.add_parser("sweeper", help="repair and clean up; any number may run")
    sweeper.set_defaults(run=_sweeper)

    migrate = commands.add_parser("migrate", help="bring the database up to date")
    migrate.add_argument("--revision", default="head")
    migrate.set_defaults(run=_migrate)

    local = argparse.ArgumentParser(add_help=False)
    local.add_argument(
        "--data-dir",
        dest="of_folder",
        type=Path,
        metavar="FOLDER",
        help="of a service that `up` runs (default: .datassay, where no settings are given)",
    )
    commands.add_parser(
        "doctor", help="check the configuration and the state of the service", parents=[local]
    ).set_defaults(run=_doctor)
    _add_keys(commands.add_parser("keys", help="API keys", parents=[local]))
    _add_tenants(commands.add_parser("tenants", help="tenants and their limits", parents=[local]))
    return parser


def _add_tenants(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="tenants_command", required=True)
    commands.add_parser("list", help="all tenants").set_defaults(run=_list_tenants)
    limit = commands.add_parser("limit", help="set limits; -1 goes back to the default")
    limit.add_argument("tenant")
    for name in _LIMITS:
        limit.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N")
    limit.set_defaults(run=_limit_tenant)


def _add_keys(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="keys_command", required=True)
    create = commands.add_parser("create", help="print a new key, this once")
    create.add_argument("--tenant", default="default")
    create.add_argument("--name", required=True)
    create.add_argument(
        "--scope", action="append", choices=SCOPES, help="repeatable; all but admin"
    )
    create.add_argument("--expires-in-days", type=float)
    create.set_defaults(run=_create_key)
    commands.add_parser("list", help="all keys").set_defaults(run=_list_keys)
    revoke = commands.add_parser("revoke", help="end a key at once")
    revoke.add_argument("id")
    revoke.set_defaults(run=_revoke_key)


def _up(args: argparse.Namespace) -> int:
    return Embedded(
        args.data_dir,
        args.host,
        args.port,
        workers=args.workers,
        run_as=args.run_db_as,
        input_root=args.input_root,
        metrics_port=args.metrics_port,
        vllm=args.vllm,
        vllm_python=args.vllm_python,
        vllm_arguments=args.vllm_args,
    ).run()


def _gateway(args: argparse.Namespace) -> int:
    import uvicorn

    Settings().require_secret()
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=args.host,
        port=args.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=10,
        server_header=False,
    )
    return 0


def _worker(args: argparse.Namespace) -> int:
    alive = [] if args.alive_file is None else ["--alive-file", str(args.alive_file)]
    return _become("workers", "worker", "--queues", args.queues, *alive)


def _sweeper(_: argparse.Namespace) -> int:
    Settings().require_secret()  # it signs webhooks
    return _become("workers", "sweeper")


def _become(*module: str) -> int:
    """Replace this process: signals then reach the real one."""
    # Safe path: packages of the working directory are the user's, and may have our names.
    os.execv(sys.executable, [sys.executable, "-P", "-m", *module])


def _migrate(args: argparse.Namespace) -> int:
    settings = Settings()
    schema.upgrade(settings, args.revision)
    print(f"the database is at {args.revision}")
    return 0


def _doctor(_: argparse.Namespace) -> int:
    failed = False
    for finding in doctor.examine(Settings()):
        mark = {True: "ok  ", False: "FAIL", None: "    "}[finding.ok]
        print(f"{mark} {finding.subject:<20} {finding.text}")
        failed |= finding.ok is False
    return int(failed)


def _create_key(args: argparse.Namespace) -> int:
    scopes = args.scope or [scope for scope in SCOPES if scope != "admin"]
    expires = None if args.expires_in_days is None else timedelta(days=args.expires_in_days)
    print(keys.create(Settings(), args.tenant, args.name, scopes, expires))
    return 0


def _list_keys(_: argparse.Namespace) -> int:
    for key in keys.list_all(Settings()):
        used = key.last_used_at.isoformat(timespec="minutes") if key.last_used_at else "never used"
        print(key.id, key.status, key.tenant, key.name, key.hint, ",".join(key.scopes), used)
    return 0


def _revoke_key(args: argparse.Namespace) -> int:
    if keys.revoke(Settings(), args.id):
        print(f"{args.id} is revoked")
        return 0
    print(f"datassay-server: there is no live key {args.id}", file=sys.stderr)
    return 1


def _list_tenants(_: argparse.Namespace) -> int:
    for tenant in tenants.list_all(Settings()):
        limits = (f"{k}={'default' if v is None else v}" for k, v in tenant.limits.items())
        print(tenant.id, tenant.name, f"stored_bytes={tenant.stored_bytes}", *limits)
    return 0


def _limit_tenant(args: argparse.Namespace) -> int:
    asked = {name: getattr(args, name) for name in _LIMITS if getattr(args, name) is not None}
    if not asked:
        raise ValueError("name at least one limit")
    limits = {name: None if value < 0 else value for name, value in asked.items()}
    if tenants.limit(Settings(), args.tenant, limits):
        return 0
    print(f"datassay-server: there is no tenant {args.tenant}", file=sys.stderr)
    return 1
