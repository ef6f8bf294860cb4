"""What `make demo` runs: start the service, score real answers through the API, show the result."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from datassay import Client
from datassay._cli.display import progress_display

HERE = Path(__file__).parent
SCORERS = ["snne", "semantic_entropy"]


def main() -> int:
    """Exit code 0 when the table was printed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path(".datassay"))
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--report", type=Path, default=Path("report.html"))
    args = parser.parse_args()

    print(f"Starting Postgres, Valkey, gateway, sweeper and a worker in {args.data_dir}/ ...")
    command = [sys.executable, "-m", "server", "up", "--data-dir", args.data_dir]
    server = subprocess.Popen([*map(str, command), "--port", str(args.port)])
    try:
        url = f"http://127.0.0.1:{args.port}"
        wait_until_ready(url, server)
        key = (args.data_dir / "admin-key").read_text()
        with Client(url, key) as client:
            assay(client, args.report)
    finally:
        server.terminate()
        server.wait()
    return 0


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    """Poll /readyz; give up when the server ends or after a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(server.returncode)
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=2)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the service did not become ready")


def assay(client: Client, report: Path) -> None:
    """Upload, submit, wait, show."""
    answers = client.files.upload(HERE / "qa-gemma.jsonl")
    print(f"\nUploaded {answers.name}: {answers.size} bytes, SHA-256 {answers.sha256[:16]}...")
    spec = {"input": answers.id, "scorers": SCORERS, "slices": ["metadata.kind"]}
    job = client.jobs.create("score-hallucination", spec)
    print(f"Submitted {job.id}")
    with progress_display() as show:
        job.wait(timeout=300, on_progress=show)
    result = job.result()
    result.print()
    result.to_html(report, title="Answers of Gemma 3 270M, scored for hallucination")
    print(f"\nReport with figures: {report.resolve()}")


if __name__ == "__main__":
    sys.exit(main())
