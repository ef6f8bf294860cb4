"""The `datassay` command: its arguments, its errors, its exit codes."""

from __future__ import annotations

import argparse
import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import shtab

from datassay._cli import account, jobs, local, select_subset, webhooks
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
  without them, the service of `datassay-server up` in ./.datassay

completion: datassay --print-completion bash > ~/.local/share/bash-completion/completions/datassay
"""


def main(argv: Sequence[str] | None = None, connect: Callable[..., Client] = Client) -> int:
    """Run the command and return its exit code.

    Args:
        argv: Arguments; default: those of the process.
        connect: Makes the client; tests put their own here.

    Raises:
        SystemExit: With 2 for arguments that cannot be parsed, with 0 for --help.
    """
    if sys.stdout is None:
        # Closed by who started us.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    args = parser().parse_args(argv)
    try:
        url, key = args.service_url, args.service_key
        if args.data_dir is not None and url is not None:
            raise ConfigurationError("give --url or --data-dir, not both")
        if args.data_dir is not None or (url is None and key is None):
            found = local.find(args.data_dir)
            url, key = found[0], key or found[1]
        with connect(base_url=url, api_key=key, max_retries=3) as client:
            run: Callable[[Session, argparse.Namespace], None] = args.run
            run(Session(client, as_json=args.as_json), args)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough; the interpreter must not flush again.
        sys.stdout = None
        return OK
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    except (DatassayError, OSError, ValueError, ArithmeticError, RecursionError) as error:
        _complain(str(error))
        if isinstance(error, JobEnded) and error.error is not None:
            for line in jobs.bad_rows(error.error.details):
                _complain(line)
        if isinstance(error, Unauthenticated):
            _complain(
                "give a key by --api-key, DATASSAY_API_KEY or DATASSAY_API_KEY_FILE, or name the "
                "folder of a local service by --data-dir"
            )
        if isinstance(error, ConnectionFailed):
            _complain("`datassay doctor` checks the address, the key and the service")
        return _exit_code(error)
    return OK


def _exit_code(error: Exception) -> int:
    match error:
        case JobEnded() | ResultUnavailable() | account.UnhealthyError():
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
    root = Parser(
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
    account.add_arguments(add)
    demo = add("demo", jobs.demo, "score real answers of a small model, and write the report")
    demo.add_argument("--report", metavar="PATH", default="report.html")
    shtab.add_argument_to(root, ["--print-completion"], help="print the completion of a shell")
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
        "--data-dir",
        dest="data_dir",
        default=absent,
        metavar="FOLDER",
        help="of a service that `datassay-server up` runs here (default: .datassay, where neither "
        "options nor environment name a service)",
    )
    common.add_argument(
        "--json",
        dest="as_json",
        action="store_true",
        default=absent_flag,
        help="print JSON instead of text",
    )
    return common


def number(text: str) -> float:
    """A number that JSON has."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


class Parser(argparse.ArgumentParser):
    """Names the nearest command or option when one is misspelt."""

    def error(self, message: str) -> NoReturn:
        match = re.match(r"argument \w+: invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if match is not None:
            known = re.findall(r"[\w-]+", match[2])
            near = difflib.get_close_matches(match[1], known, 1)
            cure = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            message = f"there is no {match[1]!r}{cure}"
        elif message.startswith("unrecognized arguments: --"):
            given = message.partition(": ")[2].split()[0].partition("=")[0]
            known = [name for action in self._options() for name in action.option_strings]
            near = difflib.get_close_matches(given, known, 1)
            message = f"there is no option {given}" + (f"; did you mean {near[0]}?" if near else "")
        super().error(message)

    def _options(self) -> Iterator[argparse.Action]:
        for action in self._actions:
            yield action
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    yield from below._actions


class Adder:
    """Adds commands that all take the global options too."""

    def __init__(self, parsers: Any) -> None:
        self._parsers = parsers

    def __call__(
        self,
        name: str,
        run: Callable[[Session, argparse.Namespace], None],
        text: str,
        helps: bool = True,
    ) -> argparse.ArgumentParser:
        # A default here would overwrite what was given before the command's name.
        common = _common(argparse.SUPPRESS, argparse.SUPPRESS)
        parser: argparse.ArgumentParser = self._parsers.add_parser(
            name, help=text, description=text, parents=[common], add_help=helps
        )
        parser.set_defaults(run=run)
        return parser


def _add_submit(add: Adder) -> None:
    submit = add("submit", jobs.submit, "submit a job and print its id", helps=False)
    submit.add_argument(
        "-h", "--help", action="store_true", help="show this; with TYPE, the fields of its spec"
    )
    submit.set_defaults(parser=submit)
    submit.add_argument(
        "type", nargs="?", metavar="TYPE", help="a job type; `datassay types` lists them"
    )
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
    submit.add_argument("--timeout", type=number, metavar="SECONDS", help="limit of one attempt")
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
    files = add("download", jobs.download, "download the files that a job made")
    files.add_argument("id", metavar="ID")
    files.add_argument("--out", metavar="FOLDER", help="default: a new one, called like the job")
    files.add_argument("--name", action="append", metavar="FILE", help="only this one; repeatable")
    report = add("open", jobs.open_report, "show the report of a job in a browser")
    report.add_argument("id", metavar="ID")
    report.add_argument("--link", action="store_true", help="print a link for people without a key")
    report.add_argument("--days", type=number, metavar="N", help="how long the link works: 7")
    curves = add("metrics", jobs.metrics, "print what a job reported over time, such as losses")
    curves.add_argument("id", metavar="ID")
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
