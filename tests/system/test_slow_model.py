"""A model that `up --vllm` serves and that takes its time, dies, or never starts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from tests.toys.up import Up, start, stop

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
ITEMS = [{"prompt": "one"}, {"prompt": "two"}]
SPEC = {"items": ITEMS, "sampler": {"model": "slow", "n": 3}, "scorers": ["snne"]}


def _python(folder: Path, does: str) -> Path:
    """Stands in for the Python of vLLM's environment, as a server that does what a test wants."""
    file = folder / "python"
    body = f"""\
        #!{sys.executable}
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(ROOT)!r})
        from tests.toys import fake_llm
        go, port = Path({str(folder)!r}) / "go", int(sys.argv[sys.argv.index("--port") + 1])
        {does}
        """
    file.write_text(dedent(body))
    file.chmod(0o755)
    return file


_WHEN_TOLD = "while not go.exists(): time.sleep(0.05)\n" + 8 * " "
_SERVES = _WHEN_TOLD + "fake_llm.listening(fake_llm.FakeLLM(), port).serve_forever()"
_FAILS = _WHEN_TOLD + "sys.exit('there is no such model')"


def _start(folder: Path, python: Path) -> Up:
    return start(folder, arguments=["--vllm", "models/slow", "--vllm-python", str(python)])


def _wait_for(happens: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_jobs_wait_for_a_model_that_is_loading_and_that_loads_again(
    folder: Path, tmp_path: Path
) -> None:
    up = _start(folder, _python(tmp_path, _SERVES))
    with up.client() as client:
        job = client.jobs.create("score-hallucination", SPEC)
        _wait_for(lambda: "waiting for slow to load" in str(job.refresh().progress))
        assert job.raw_state == "RUNNING"
        (tmp_path / "go").touch()
        assert job.wait(timeout=60).raw_state == "SUCCEEDED", job.error
        (tmp_path / "go").unlink()
        [server] = up.named("vllm.entrypoints")
        server.kill()
        psutil.wait_procs([server], timeout=10)
        again = client.jobs.create("score-hallucination", SPEC | {"seed": 1})
        _wait_for(lambda: "waiting for slow to load" in str(again.refresh().progress))
        (tmp_path / "go").touch()
        assert again.wait(timeout=60).raw_state == "SUCCEEDED", again.error
    assert stop(up).count("Model slow is served") == 2


def test_a_model_that_never_starts_ends_its_jobs(folder: Path, tmp_path: Path) -> None:
    up = _start(folder, _python(tmp_path, _FAILS))
    with up.client() as client:
        job = client.jobs.create("score-hallucination", SPEC)
        _wait_for(lambda: "waiting for slow to load" in str(job.refresh().progress))
        # Not before: a service whose model fails while it starts ends with it.
        (tmp_path / "go").touch()
        job.wait(timeout=60, raise_on_failure=False)
        assert job.raw_state == "FAILED"
        assert job.error is not None
        assert job.error.code == "model_unavailable"
        assert "'slow' does not start" in job.error.message
        assert client.jobs.create("toy", {}).wait(timeout=60).raw_state == "SUCCEEDED"
    output = stop(up)
    assert "there is no such model" in output, "whoever started it is told why"
