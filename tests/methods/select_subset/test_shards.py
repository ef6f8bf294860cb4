"""Extraction in shards: the same whoever reads them, and each is read once."""

import shutil

import numpy as np
import pytest
import torch

from methods.errors import JobCancelled
from methods.inference.model_registry import Models
from methods.local import LocalContext
from methods.select_subset.job import run
from methods.select_subset.proxy.model import fine_tuning
from methods.select_subset.proxy.rows.spool import Spool
from methods.select_subset.proxy.shards import reader
from methods.select_subset.proxy.shards.engines import cut
from methods.select_subset.proxy.shards.reader import PackReader
from methods.select_subset.proxy.shards.shard_format import Pack, pack
from methods.select_subset.schema.reading_plan import ReadingWork
from methods.select_subset.spec import Spec
from tests.methods.select_subset.proxied import IMAGES, WORDS, conversation, inline, request, uri
from tests.methods.select_subset.selecting import array, select
from tests.toys import tiny_llava as tiny


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
def reference(model, tmp_path_factory):
    return select(tmp_path_factory.mktemp("reference"), **request(model))


class KilledError(Exception):
    """Stands for a worker that is gone."""


def readings(monkeypatch, die_at=None):
    """Counts forward passes over batches, and ends the attempt in one of them."""
    calls = []
    real = reader.read_batch

    def counted(*args, **more):
        calls.append(args)
        if len(calls) == die_at:
            raise KilledError
        return real(*args, **more)

    monkeypatch.setattr(reader, "read_batch", counted)
    return calls


@pytest.mark.parametrize("folder_lost", [False, True])
def test_a_killed_attempt_redoes_only_the_lost_shard(
    model, tmp_path, monkeypatch, reference, folder_lost
):
    steps = []
    real_step = fine_tuning._backward
    monkeypatch.setattr(fine_tuning, "_backward", lambda *a: steps.append(1) or real_step(*a))
    # 3 checkpoints of 3 shards with a batch each; the fifth is lost.
    with monkeypatch.context() as patch:
        readings(patch, die_at=5)
        with pytest.raises(KilledError):
            select(tmp_path, **request(model))
    assert len(steps) == 4
    if folder_lost:
        for folder in (tmp_path / "work").glob("proxy-*"):
            shutil.rmtree(folder)
    calls = readings(monkeypatch)
    result = select(tmp_path, **request(model))
    assert len(calls) == 9 - 4
    assert len(steps) == 4
    assert result.indices == reference.indices
    assert result.input_digest == reference.input_digest


# Pitfall 14: cancelled between shards, what was read stays.
def test_a_cancelled_job_keeps_its_finished_shards(model, tmp_path, monkeypatch, reference):
    def cancel(phase, current, total, unit):
        # Checkpoint 0 has 3 shards, then checkpoint 1 the first of 3.
        if phase == "reading the model" and current > IMAGES:
            raise JobCancelled

    spec = Spec.model_validate(request(model))
    with pytest.raises(JobCancelled):
        run(spec, LocalContext(tmp_path, spec, on_progress=cancel))
    calls = readings(monkeypatch)
    assert run(spec, LocalContext(tmp_path, spec)).indices == reference.indices
    assert len(calls) == 9 - 4


def test_other_data_finds_nothing_of_an_earlier_job(model, tmp_path, monkeypatch):
    select(tmp_path, **request(model))
    calls = readings(monkeypatch)
    rows = inline()
    rows[0]["image"] = uri(99)
    select(tmp_path, **request(model, dataset={"rows": rows}))
    assert len(calls) == 9


@pytest.mark.parametrize("shard_rows", [9, 1_000])
def test_the_values_do_not_depend_on_the_shards(model, tmp_path, reference, shard_rows):
    spec = request(model)
    spec["model"] |= {"shard_rows": shard_rows}
    # The digest is over every bit of the features.
    assert select(tmp_path, **spec).input_digest == reference.input_digest


def test_rows_are_cut_into_whole_batches_each_once():
    lengths = np.random.default_rng(0).integers(1, 60, 700)
    rows = np.flatnonzero(lengths % 7)
    of_one, of_many, whole = (cut(rows, lengths, 500, size) for size in (1, 100, 10_000))
    assert [len(shard) for shard in of_one] == [1] * len(whole[0])
    assert len(whole) == 1 < len(of_many) < len(of_one)
    for shards in (of_one, of_many):
        for one, other in zip((b for s in shards for b in s), whole[0], strict=True):
            assert one.tolist() == other.tolist()
    assert sorted(np.concatenate(whole[0]).tolist()) == rows.tolist()
    assert all(sum(map(len, shard)) >= 100 for shard in of_many[:-1])
    assert all(lengths[batch].max() * len(batch) <= 500 for batch in whole[0])


def spooled(folder, count):
    spool = Spool(folder / "spool", None)
    for n in range(count):
        images = [{"bytes": tiny.png(n)}] * (n % 3)
        row = conversation(n, False)
        row["conversations"][0]["value"] = "<image>" * len(images) + "ü is it"
        spool.add(row, images, "image")
    spool.seal()
    return spool


def test_a_pack_holds_its_rows_with_their_images(tmp_path):
    spool = spooled(tmp_path, 9)
    batches = [np.array([8, 1]), np.array([4, 0, 2])]
    found = Pack(pack(spool, batches))
    assert [batch.tolist() for batch in found.batches] == [[8, 1], [4, 0, 2]]
    for row in (8, 1, 4, 0, 2):
        assert found.read(row) == spool.read(row)
    assert found.read(8)[1] == [tiny.png(8)] * 2
    spool.close()


@pytest.mark.parametrize("target", [False, True])
def test_a_reader_with_nothing_but_bytes_reads_the_same(model, tmp_path, target):
    method = {"method": "less", "params": {}} if target else {}
    if target:
        method["target"] = {"rows": [conversation(n, False) for n in range(3)]}
    spec = request(model, **method)
    spec["model"]["fine_tune"] = None
    result = select(tmp_path, **spec)
    spool = Spool(tmp_path / "again", None)
    for row in inline():
        spool.add(row, [row["image"]] if "image" in row else [], "image")
    aimed = Spool(tmp_path / "aim", None)
    for n in range(3):
        aimed.add(conversation(n, False), [], "image")
    for each in (spool, aimed):
        each.seal()
    work = ReadingWork(
        model=model,
        max_tokens=2048,
        readings=["influence" if target else "singular_values"],
        top_k=5,
        tasks=[0, 0, 0] if target else None,
    )
    aim = pack(aimed, [np.arange(3)]) if target else None
    far = PackReader(work, Models(any_path=True), aim)
    far.use(None)
    rows = np.array([3, 17, 5])
    found = far.read(pack(spool, [rows[:2], rows[2:]]))
    far.close()
    values = array(tmp_path, result, "features")["task_score" if target else "singular_values"]
    expected = values[rows] if target else values[rows, 0]
    assert found["row"].tolist() == rows.tolist()
    np.testing.assert_allclose(found[work.readings[0]], expected, rtol=1e-5, atol=1e-6)
