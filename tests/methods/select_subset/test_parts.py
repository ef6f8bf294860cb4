"""A job with a model in parts gives what it gives in one piece, and parts are used again."""

import json

import numpy as np
import pytest
import torch

from methods.errors import JobError
from methods.inference.model_registry import Models
from methods.local import LocalContext
from methods.select_subset.job import run
from methods.select_subset.proxy.model import fine_tuning
from methods.select_subset.proxy.shards import children, reader
from methods.select_subset.result import Result
from methods.select_subset.spec import Spec
from tests.methods.select_subset.proxied import IMAGES, WORDS, conversation, inline, request
from tests.methods.select_subset.selecting import select, text
from tests.toys import tiny_clip
from tests.toys import tiny_llava as tiny
from tests.toys.tiny_models import tiny_llama


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny.save(tmp_path_factory.mktemp("model"), WORDS, hidden=16))


class Parallel(LocalContext):
    """A local context that has its children as a service does."""

    parallel = True


def in_parts(folder, **spec):
    parsed = Spec.model_validate_json(json.dumps(spec))
    result = run(parsed, Parallel(folder, parsed))
    return Result.model_validate_json(result.model_dump_json())


def of_file(folder, model, rows=None, **more):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(row) + "\n" for row in (rows or inline())]
    (folder / "rows.jsonl").write_text("".join(lines))
    return request(model, dataset={"input": "rows.jsonl"}, **more)


def kinds(folder):
    found = [json.loads(p.read_text()) for p in (folder / "children").glob("*/result.json")]
    return sorted("proxy" if "marks" in result else "shard" for result in found)


@pytest.mark.parametrize("method", ["xmas", "less", "coincide", "perplexity"])
def test_parts_give_what_one_process_gives(model, tmp_path, method):
    more = {"method": method, "params": {"clusters": 4} if method in {"xmas", "coincide"} else {}}
    if method == "less":
        more["target"] = {"rows": [conversation(n, False) for n in range(3)]}
    spec = of_file(tmp_path, model, **more)
    whole, apart = select(tmp_path, **spec), in_parts(tmp_path, **spec)
    # The digest is over every bit of the features.
    assert apart == whole
    assert kinds(tmp_path).count("proxy") == 1
    # Text-only rows are in shards of their own, which methods of images leave out.
    per_checkpoint = 3 if method in {"xmas", "coincide"} else 4
    checkpoints = 3 if method in {"xmas", "less"} else 1
    assert kinds(tmp_path).count("shard") == checkpoints * per_checkpoint


def test_a_clip_is_read_in_parts(tmp_path):
    clip = str(tiny_clip.save(tmp_path / "clip", WORDS))
    spec = of_file(tmp_path, clip, method="clip_score", params={})
    spec["model"] = {"name": clip, "batch_tokens": 60, "shard_rows": 4}
    assert in_parts(tmp_path, **spec) == select(tmp_path, **spec)
    assert kinds(tmp_path).count("shard") > 3


def test_other_methods_on_the_same_rows_train_nothing(model, tmp_path, monkeypatch):
    steps = []
    real = fine_tuning._backward
    monkeypatch.setattr(fine_tuning, "_backward", lambda *a: steps.append(1) or real(*a))
    spec = of_file(tmp_path, model)
    in_parts(tmp_path, **spec)
    assert len(steps) == 4
    in_parts(tmp_path, **spec | {"method": "s2l", "params": {"clusters": 4}})
    in_parts(tmp_path, **spec | {"model": spec["model"] | {"attention": "official"}})
    assert len(steps) == 4
    assert kinds(tmp_path) == ["proxy"] + ["shard"] * (9 + 12 + 9)
    # Another budget reads nothing either.
    calls = []
    monkeypatch.setattr(reader, "read_batch", lambda *a, **k: calls.append(a))
    assert in_parts(tmp_path, **spec | {"budget": {"count": 5}}).selected == 5
    assert not calls


class KilledError(Exception):
    """Stands for a worker that is gone."""


# Pitfall 13: shards are keyed by what they are, so that doing one again changes nothing.
def test_a_lost_shard_alone_is_read_again(model, tmp_path, monkeypatch):
    spec = of_file(tmp_path, model)
    read = []
    real = children.PackReader.read

    def counted(self, shard, tell):
        read.append(len(shard))
        if len(read) == 5:
            raise KilledError
        return real(self, shard, tell)

    monkeypatch.setattr(children.PackReader, "read", counted)
    with pytest.raises(KilledError):
        in_parts(tmp_path, **spec)
    result = in_parts(tmp_path, **spec)
    assert result.selected == 8
    assert len(read) == 9 + 1


def test_bad_rows_end_the_job_or_are_left_out(model, tmp_path):
    rows = inline()
    rows[3]["image"] = "data:image/png;base64,AAAA"
    rows[7]["conversations"] = []
    spec = of_file(tmp_path, model, rows)
    with pytest.raises(JobError, match="2 of 28 rows are not valid; the first is row 3") as caught:
        in_parts(tmp_path, **spec)
    assert [bad["row"] for bad in caught.value.details["examples"]] == [3, 7]
    assert kinds(tmp_path) == ["proxy"]
    spec["on_bad_rows"] = "skip"
    skipped = in_parts(tmp_path, **spec)
    assert skipped == select(tmp_path, **spec)
    assert [json.loads(line)["row"] for line in text(tmp_path, skipped, "bad_rows").splitlines()]


def test_shards_are_cut_to_last(model, tmp_path, monkeypatch):
    """Without a wish, a shard is as many rows as are read in a given time."""
    monkeypatch.setattr("methods.select_subset.proxy_features.HERE_ROWS", 10)
    monkeypatch.setattr(children, "_FEWEST_ROWS", 9)
    spec = of_file(tmp_path, model, params={"clusters": 4}, method="coincide")
    spec["model"]["shard_rows"] = None
    monkeypatch.setattr(children, "SHARD_SECONDS", 0.0)
    short = in_parts(tmp_path / "short", **of_at(tmp_path / "short", spec))
    monkeypatch.setattr(children, "SHARD_SECONDS", 1e6)
    long = in_parts(tmp_path / "long", **of_at(tmp_path / "long", spec))
    assert short == long
    assert kinds(tmp_path / "short").count("shard") == 3
    assert kinds(tmp_path / "long").count("shard") == 1


def of_at(folder, spec):
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in inline()))
    return spec


def test_progress_is_over_all_shards(model, tmp_path):
    told = []

    def listen(phase, current, total, unit):
        if phase == "reading the model" and total == 3 * IMAGES:
            told.append(current)

    spec = Spec.model_validate(of_file(tmp_path, model))
    run(spec, Parallel(tmp_path, spec, on_progress=listen))
    assert len(told) == 9
    assert told[-1] == 3 * IMAGES
    assert np.diff(told).min() > 0


def test_a_model_that_nobody_declared(tmp_path):
    spec = Spec.model_validate(of_file(tmp_path, "nobody"))
    with pytest.raises(JobError, match="There is no model 'nobody'"):
        run(spec, Parallel(tmp_path, spec, models=Models()))


@pytest.mark.parametrize("method", ["xmas", "coincide", "ifd", "less"])
def test_a_text_model_in_parts_without_copies_and_held_out_rows(tmp_path, monkeypatch, method):
    """What is left out before training is left out by the part that trains, too."""
    llama = str(tiny_llama(tmp_path / "llama", hidden=64))
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    rows = [
        {"id": f"r{n}", "prompt": f"after {a} ?", "completion": f"{numbers[n % 7]} {a}"}
        for n, a in enumerate(numbers * 3)
    ]
    rows += [{**rows[n], "id": f"c{n}"} for n in range(6)]
    lora = {"rank": 2} if method == "less" else None
    fine_tune = {"epochs": 1, "learning_rate": 1e-2, "batch_rows": 8, "checkpoints": 2}
    spec = {
        "dataset": {"input": "rows.jsonl"},
        "model": {"name": llama, "fine_tune": fine_tune | {"lora": lora}, "shard_rows": 1},
        "budget": {"count": 6},
        "method": method,
        "params": {"clusters": 3} if method in {"xmas", "coincide"} else {},
        "duplicates": "drop",
        "prove": {"seeds": 2, "held_out": 0.2},
    }
    if method == "less":
        spec["target"] = {"rows": rows[:2]}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = select(tmp_path, **spec)
    monkeypatch.setattr("methods.select_subset.proof.proof.HERE_ROWS", 1)
    apart = in_parts(tmp_path, **spec)
    found = json.loads((tmp_path / apart.artifacts["duplicates"].id).read_text().splitlines()[0])
    assert (found["id"], found["of_id"]) == ("c0", "r0")
    assert apart.proof.asked == 6
    assert apart.candidates == 24
    timing = {"seconds_per_step", "hours_all", "hours_chosen", "hours_saved"}
    ours, theirs = (one.proof.model_dump(exclude=timing) for one in (whole, apart))
    assert ours == theirs
    assert apart.indices == whole.indices
    assert apart.input_digest == whole.input_digest
    assert apart.proxy == whole.proxy
