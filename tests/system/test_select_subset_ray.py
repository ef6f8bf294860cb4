"""Extraction by a local Ray of two workers gives what one process gives."""

import contextlib
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import torch

from methods.errors import JobCancelled, JobError
from methods.local import LocalContext
from methods.select_subset.job import run
from methods.select_subset.proxy.shards import ray_data
from methods.select_subset.spec import Spec
from tests.methods.select_subset.proxied import IMAGES, WORDS, conversation, request
from tests.methods.select_subset.selecting import select
from tests.toys import tiny_llava as tiny

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra ray is not there: make ray"),
    pytest.mark.timeout(600),
]
PORT = 6397


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.save(tmp_path_factory.mktemp("model"), WORDS, hidden=16))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The address of a Ray whose workers find this package as this process does."""
    ray = Path(sys.executable).with_name("ray")
    folder = tmp_path_factory.mktemp("r")
    start = [
        *(ray, "start", "--head", f"--port={PORT}", "--num-cpus=2", "--disable-usage-stats"),
        *("--include-dashboard=false", f"--object-store-memory={100 * 2**20}"),
        f"--temp-dir={folder}",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(
            [*map(str, start), "--block"], env=environment, stdout=out, stderr=out
        )
    try:
        while b"Ray runtime started" not in (folder / "out").read_bytes():
            assert process.poll() is None, (folder / "out").read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{PORT}"
    finally:
        # Asked politely, it takes half a minute.
        for each in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait(30)


@pytest.fixture
def on_ray(cluster, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", cluster)


def test_a_cluster_reads_what_one_process_reads(model, tmp_path, on_ray, monkeypatch):
    """With target rows, which go along, at three checkpoints."""
    target = {"rows": [conversation(n, False) for n in range(3)]}
    spec = request(model, method="less", params={}, target=target)
    found = select(tmp_path / "ray", **spec)
    monkeypatch.delenv("RAY_ADDRESS")
    # The digest is over every bit of the features.
    assert found == select(tmp_path / "here", **spec)
    assert not (tmp_path / "ray" / "work" / "ray").exists()


def test_an_attempt_goes_on_with_the_shards_that_ray_had_read(model, tmp_path, on_ray, monkeypatch):
    read = []
    real = ray_data.RayData.read

    def counted(self, keys, tell):
        read.append(len(keys))
        return real(self, keys, tell)

    monkeypatch.setattr(ray_data.RayData, "read", counted)

    def cancel(phase, current, total, unit):
        if phase == "reading the model" and current > IMAGES:
            raise JobCancelled

    spec = Spec.model_validate(request(model))
    with pytest.raises(JobCancelled):
        run(spec, LocalContext(tmp_path, spec, on_progress=cancel))
    result = run(spec, LocalContext(tmp_path, spec))
    assert result.selected == 8
    assert read[0] == 9
    assert 0 < read[1] <= 9 - 4


def test_what_a_node_says_of_the_model_is_the_error_of_the_job(
    model, tmp_path, on_ray, monkeypatch
):
    """The nodes lack what this machine has."""
    real = ray_data.RayData.__init__

    def elsewhere(self, work, declaration, *more, **rest):
        gone = declaration.model_copy(update={"path": str(tmp_path / "gone")})
        real(self, work, gone, *more, **rest)

    monkeypatch.setattr(ray_data.RayData, "__init__", elsewhere)
    with pytest.raises(JobError, match="cannot be loaded") as caught:
        select(tmp_path, **request(model))
    assert caught.value.code == "model_unavailable"


def test_no_cluster_is_a_clear_error(model, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(JobError, match="No Ray at RAY_ADDRESS") as caught:
        select(tmp_path, **request(model))
    assert caught.value.code == "model_unavailable"
