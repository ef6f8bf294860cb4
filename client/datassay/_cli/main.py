"""The `datassay` command: its arguments, its errors, its exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from datassay._cli import jobs, select_subset, webhooks
from datassay._cli.jobs import Session
from datassay._version import __version__
from datassay.client import Client
from datassay.errors import (
    ConfigurationError,
    ConnectionFailed,
    DatassayError,
    JobEnded,
    ResultUnavailable,
    Unauthenticated,
)

OK, JOB_ENDED, USAGE, API, NO_CONNECTION, INTERRUPTED = 0, 1, 2, 3, 4, 130

_EPILOG = """\
exit codes:
  0  done
  1  the job failed, was cancelled or expired
  2  wrong usage: arguments, a file that cannot be read or written, an unusable URL
  3  the service rejected the request or sent an unreadable reply
  4  no connection
  130  interrupted; jobs go on

environment:
  DATASSAY_URL, DATASSAY_API_KEY, DATASSAY_API_KEY_FILE (path of a file that holds the key)
"""


def main(argv: Sequence[str] | None = None, connect: Callable[..., Client] = Client) -> int:
    """Run the command and return its exit code.

    Args:
        argv: Arguments; default: those of the process.
        connect: Makes the client; tests put their own here.

    Raises:
        SystemExit: With 2 for arguments that cannot be parsed, with 0 for --help.
    """
    args = parser().parse_args(argv)
    try:
        with connect(base_url=args.service_url, api_key=args.service_key, max_retries=3) as client:
            run: Callable[[Session, argparse.Namespace], None] = args.run
            run(Session(client, as_json=args.as_json), args)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; the interpreter must not flush again.
        sys.stdout = None
        return OK
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except (DatassayError, OSError, ValueError) as error:
        _complain(str(error))
        if isinstance(error, Unauthenticated):
            _complain("give a key by --api-key, DATASSAY_API_KEY or DATASSAY_API_KEY_FILE")
        return _exit_code(error)
    return OK


def _exit_code(error: Exception) -> int:
    match error:
        case JobEnded() | ResultUnavailable():
            return JOB_ENDED
        case ConnectionFailed():
            return NO_CONNECTION
        case ConfigurationError():
            return USAGE
        case DatassayError():
            return API
    return USAGE


def _complain(message: str) -> None:
    lines = [jobs.printable(line) for line in message.splitlines()] or ["unknown error"]
    print("datassay:", "\n".join(lines), file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The whole command line, with `run` and its arguments as the outcome of parsing."""
    root = argparse.ArgumentParser(
        prog="datassay",
        description="Submit jobs to a Datassay service and read their results.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_common(None, False)],
    )
    root.add_argument("--version", action="version", version=f"datassay {__version__}")
    add = Adder(root.add_subparsers(metavar="COMMAND", required=True))
    _add_submit(add)
    select_subset.add_arguments(
        add(
            "select-subset",
            select_subset.select_subset,
            "choose the rows of a file worth training on",
        )
    )
    _add_job_commands(add)
    _add_files(add)
    add("usage", jobs.usage, "show what your tenant takes up, and its quotas")
    webhooks.add_arguments(add)
    types = add("types", jobs.types, "list the job types, or show one with its schemas")
    types.add_argument("name", nargs="?", metavar="NAME")
    return root


def _common(absent: Any, absent_flag: Any) -> argparse.ArgumentParser:
    """The global options, which are taken before and after the command's name.

    They have destinations that no argument of a command can take: the API key goes to the address
    in `service_url`, and a command may well have a URL of its own.
    """
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--url",
        dest="service_url",
        default=absent,
        metavar="URL",
        help="root of the service (default: DATASSAY_URL)",
    )
    common.add_argument("--api-key", dest="service_key", default=absent, metavar="KEY")
    common.add_argument(
        "--json",
        dest="as_json",
        action="store_true",
        default=absent_flag,
        help="print JSON instead of text",
    )
    return common


class Adder:
    """Adds commands that all take the global options too."""

    def __init__(self, parsers: Any) -> None:
        self._parsers = parsers

    def __call__(
        self, name: str, run: Callable[[Session, argparse.Namespace], None], text: str
    ) -> argparse.ArgumentParser:
        # A default here would overwrite what was given before the command's name.
        common = _common(argparse.SUPPRESS, argparse.SUPPRESS)
        parser: argparse.ArgumentParser = self._parsers.add_parser(
            name, help=text, description=text, parents=[common]
        )
        parser.set_defaults(run=run)
        return parser


def _add_submit(add: Adder) -> None:
    submit = add("submit", jobs.submit, "submit a job and print its id")
    submit.add_argument("type", metavar="TYPE", help="a job type; `datassay types` lists them")
    submit.add_argument("--spec", metavar="FILE", help="the spec as JSON; - reads standard input")
    submit.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a field of the spec; KEY may have dots, VALUE is JSON or else text",
    )
    submit.add_argument(
        "--input",
        metavar="PATH",
        help="set spec.input: a file is uploaded, a URI (https://, s3://, hf://) passed on",
    )
    submit.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    submit.add_argument("--priority", type=int, metavar="N", help="-100 to 100, higher is sooner")
    submit.add_argument("--timeout", type=float, metavar="SECONDS", help="limit of one attempt")
    submit.add_argument(
        "--cache",
        choices=("use", "refresh", "off"),
        help="whether an earlier result may be taken over (default: use)",
    )
    submit.add_argument("--dry-run", action="store_true", help="validate only")
    submit.add_argument("--wait", action="store_true", help="wait for the end, print the result")


def _add_job_commands(add: Adder) -> None:
    for name, run, text in (
        ("wait", jobs.wait, "wait until a job has ended"),
        ("show", jobs.show, "show a job"),
        ("cancel", jobs.cancel, "cancel a job"),
        ("retry", jobs.retry, "submit the spec of an ended job again"),
    ):
        add(name, run, text).add_argument("id", metavar="ID")
    result = add("result", jobs.result, "print or save the result of a job")
    result.add_argument("id", metavar="ID")
    result.add_argument("--html", metavar="PATH", help="write a report that opens offline")
    result.add_argument("--out", metavar="PATH", help="write the result as JSON")
    events = add("events", jobs.events, "print the events of a job")
    events.add_argument("id", metavar="ID")
    events.add_argument("--follow", action="store_true", help="go on to the end of the job")
    listing = add("list", jobs.list_jobs, "list jobs, newest first")
    listing.add_argument("--type", metavar="TYPE")
    listing.add_argument("--state", action="append", metavar="STATE", type=str.upper)
    listing.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="default: 20")


def _add_files(add: Adder) -> None:
    files = add("files", jobs.list_files, "upload, list and delete inputs")
    action = Adder(files.add_subparsers(metavar="ACTION", required=True))
    upload = action("upload", jobs.upload, "upload files and print their ids")
    upload.add_argument("paths", nargs="+", metavar="PATH")
    listing = action("list", jobs.list_files, "list uploaded files, newest first")
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="default: 20")
    delete = action("delete", jobs.delete_files, "delete uploaded files")
    delete.add_argument("ids", nargs="+", metavar="ID")
