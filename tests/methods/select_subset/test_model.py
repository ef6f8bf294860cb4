"""Jobs with a proxy model, from rows with images to the choice, with a tiny real LLaVA."""

import base64
import io
import json
import shutil
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from methods.errors import JobError
from methods.finetuning.schedule import Plan, row_order
from methods.inference.model_registry import Models
from methods.local import LocalContext
from methods.resume import ResumeStore
from methods.select_subset.data.images import Archive, BadImageError, decode
from methods.select_subset.job import run
from methods.select_subset.proxy.model.fine_tuning import fine_tune
from methods.select_subset.schema.methods import PARAMS
from methods.select_subset.spec import Spec
from tests.methods.select_subset.proxied import IMAGES, WORDS, conversation, inline, request
from tests.methods.select_subset.selecting import array, select, text
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


def test_the_whole_way_from_rows_to_a_choice(model, tmp_path, reference):
    result = select(tmp_path, **request(model))
    assert result == reference
    assert result.selected == 8
    proxy = result.proxy
    assert proxy.checkpoint_steps == [1, 3, 4]
    assert proxy.rows_read == IMAGES
    # The model learns: these are mean losses over 4 steps at a high rate.
    assert proxy.losses[-1] < proxy.losses[0]
    assert result.validation.text_only_rows == 4
    assert torch.__version__.startswith(result.provenance.versions["torch"])
    values = array(tmp_path, result, "features")
    assert values["singular_values"].shape == (IMAGES, 3, 5)
    assert (np.diff(values["singular_values"], axis=2) <= 0).all()
    assert (values["singular_values"][:, :, 0] > 0).all()
    sheet = Image.open(tmp_path / result.artifacts["contact_sheet"].id)
    assert sheet.width > 800
    assert "Map of the selection" in {figure.title for figure in result.figures}


def test_the_features_serve_further_jobs(model, tmp_path, reference):
    first = select(tmp_path, **request(model))
    again = select(
        tmp_path,
        dataset={"rows": inline()},
        features={"kind": "singular_values", "input": first.artifacts["features"].id},
        budget={"count": 8},
        params={"clusters": 4},
    )
    assert again.indices == first.indices == reference.indices


def write_archive(path, kind):
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for n in range(IMAGES):
                archive.writestr(f"coco/ü{n}.png", tiny.png(n))
        return
    with tarfile.open(path, "w") as archive:
        for n in range(IMAGES):
            add_file(archive, f"./coco/ü{n}.png", tiny.png(n))


def add_file(archive, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def as_messages(row):
    turns = [
        {"role": {"human": "user", "gpt": "assistant"}[t["from"]], "content": t["value"]}
        for t in row["conversations"]
    ]
    return {key: value for key, value in row.items() if key != "conversations"} | {
        "messages": turns
    }


@pytest.mark.parametrize(
    "form", ["llava_json zip", "jsonl tar", "messages", "parquet", "webdataset"]
)
def test_every_format_gives_the_same_choice(model, tmp_path, reference, form):
    rows = [conversation(n, n < IMAGES) for n in range(IMAGES + 4)]
    dataset = {"input": "rows", "format": form.split()[0]}
    paths = [row | {"image": f"coco/ü{n}.png"} for n, row in enumerate(rows[:IMAGES])]
    paths += rows[IMAGES:]
    if form in {"llava_json zip", "jsonl tar"}:
        write_archive(tmp_path / "images", form.split()[1])
        dataset["images"] = "images"
        lines = [json.dumps(row, ensure_ascii=False) for row in paths]
        joined = "\n".join(lines) if "jsonl" in form else "[" + ",\n".join(lines) + "]"
        (tmp_path / "rows").write_text(joined)
    elif form == "messages":
        dataset["format"] = "jsonl"
        given = [
            as_messages(row) | ({"images": [row.pop("image")]} if "image" in row else {})
            for row in inline()
        ]
        (tmp_path / "rows").write_text("\n".join(json.dumps(row) for row in given))
    elif form == "parquet":
        import pyarrow.parquet

        given = [
            row | {"image": {"bytes": tiny.png(n), "path": f"{n}.png"} if n < IMAGES else None}
            for n, row in enumerate(rows)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(given), tmp_path / "rows")
    else:
        with tarfile.open(tmp_path / "rows", "w") as archive:
            for n, row in enumerate(rows):
                add_file(archive, f"part/{n:04}.json", json.dumps(row).encode())
                if n < IMAGES:
                    add_file(archive, f"part/{n:04}.png", tiny.png(n))
    result = select(tmp_path, **request(model, dataset=dataset))
    assert result.indices == reference.indices
    ids = [json.loads(line) for line in text(tmp_path, result, "ids").splitlines()]
    assert ids == [f"r{row}" for row in result.indices]
    if form == "webdataset":
        with tarfile.open(tmp_path / result.artifacts["rows"].id) as archive:
            names = archive.getnames()
        expected = []
        for row in result.indices:
            expected.append(f"part/{row:04}.json")
            expected += [f"part/{row:04}.png"] if row < IMAGES else []
        assert names == expected


@pytest.mark.parametrize(
    "method",
    [m for m, params in PARAMS.items() if params.from_model is not None and m != "clip_score"],
)
def test_every_method_that_a_proxy_can_feed(model, tmp_path, method):
    more = {"params": {}, "method": method}
    if method == "presel":
        rows = [row | {"task": f"t{n % 2}"} for n, row in enumerate(inline())]
        more |= {"groups": {"field": "task"}, "dataset": {"rows": rows}}
        more["params"] = {"irs": {"t0": 0.5, "t1": 0.6}}
    if method in {"less", "icons"}:
        more["target"] = {"rows": [conversation(n, False) for n in range(3)]}
    result = select(tmp_path, **request(model, **more))
    assert result.selected == 8
    assert len(set(result.indices)) == 8
    kinds = set(PARAMS[method].from_model.readings)
    assert kinds <= set(array(tmp_path, result, "features").files)


def test_rows_like_the_target_are_chosen(model, tmp_path):
    target = [conversation(n, False) | {"task": f"t{n % 2}"} for n in range(6)]
    spec = request(model, method="less", params={"checkpoint_weights": [3, 2, 1]})
    spec["target"] = {"rows": target, "task_field": "task"}
    result = select(tmp_path, **spec)
    assert result.proxy.tasks == ["t0", "t1"]
    scores = array(tmp_path, result, "features")["task_score"]
    assert scores.shape == (IMAGES + 4, 2)
    assert np.abs(scores).max() <= 6
    unweighted = select(tmp_path, **spec | {"params": {}})
    assert unweighted.input_digest != result.input_digest
    with pytest.raises(JobError, match="has 2 values, there are 3 checkpoints"):
        select(tmp_path, **spec | {"params": {"checkpoint_weights": [1, 2]}})
    target[4]["conversations"] = []
    with pytest.raises(JobError, match="Target: 1 of 6 rows are not valid; the first is row 4"):
        select(tmp_path, **spec)


def test_methods_without_a_way_from_a_proxy_are_refused(model):
    for method, match in (
        ("random", "needs no features, leave out model"),
        ("less", "a target belongs to less and icons"),
        ("icons", "a target belongs to less and icons"),
    ):
        with pytest.raises(ValidationError, match=match):
            Spec.model_validate(request(model, method=method, params={}))
    with pytest.raises(ValidationError, match="a target belongs to less and icons"):
        Spec.model_validate(request(model, target={"rows": [{}]}))
    values = {"features": {"kind": "trajectory", "values": [[1.0]]}, "model": None}
    with pytest.raises(ValidationError, match="a target needs a model"):
        Spec.model_validate(request(model, target={"rows": [{}]}) | values)
    both = request(model) | {"features": {"kind": "trajectory", "values": [[1.0]]}}
    with pytest.raises(ValidationError, match=r"exactly one of features .or embed. and model"):
        Spec.model_validate(both)
    with pytest.raises(ValidationError, match="a model needs a dataset"):
        Spec.model_validate(request(model, dataset=None))
    with pytest.raises(ValidationError, match="top_k must be a number"):
        Spec.model_validate(request(model, params={"top_k": None}))


def bomb():
    """A PNG of a few bytes that says it has 10^10 pixels."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_bad_rows_are_listed_before_anything_runs(model, tmp_path):
    rows = inline()
    damaged = base64.b64encode(tiny.png(1)[:200]).decode()
    rows[1]["image"] = "data:image/png;base64," + damaged
    rows[3]["image"] = "gone.png"
    rows[5]["image"] = "data:image/png;base64,***"
    rows[7]["image"] = "data:image/png;base64," + base64.b64encode(bomb()).decode()
    rows[9]["conversations"][1]["value"] = "   "
    rows[11]["id"] = rows[10]["id"]
    del rows[12]["conversations"]
    rows[13]["conversations"] = []
    expected = {
        1: "cannot be decoded",
        3: "is a path, and dataset.images gives no archive",
        5: "damaged data URI",
        7: "pixels|DecompressionBomb",
        9: "no answer to learn from",
        11: "repeats the id of row 10",
        12: "is missing",
        13: "is empty",
    }
    spec = request(model, dataset={"rows": rows, "ids": "unique"})
    with pytest.raises(JobError, match="8 of 28 rows are not valid") as caught:
        select(tmp_path, **spec)
    found = {bad["row"]: bad for bad in caught.value.details["examples"]}
    assert sorted(found) == sorted(expected)
    for row, message in expected.items():
        assert any(part in found[row]["problem"] for part in message.split("|")), found[row]
    skipped = select(tmp_path, **spec, on_bad_rows="skip")
    assert skipped.selected == 8
    assert not set(skipped.indices) & set(expected)
    assert skipped.validation.bad_rows == 8
    assert [json.loads(x)["row"] for x in text(tmp_path, skipped, "bad_rows").splitlines()] == list(
        expected
    )


def test_images_beyond_the_limits_are_never_decoded(monkeypatch):
    with pytest.raises(BadImageError):
        decode(bomb())
    with pytest.raises(BadImageError, match="cannot be decoded"):
        decode(b"\x89PNG nothing")
    monkeypatch.setattr("methods.select_subset.data.images.MAX_PIXELS", 100)
    with pytest.raises(BadImageError, match="24 x 24 pixels, more than 100"):
        decode(tiny.png(0))
    monkeypatch.setattr("methods.select_subset.data.images.MAX_BYTES", 100)
    with pytest.raises(BadImageError, match="larger than 100 bytes"):
        decode(tiny.png(0))


def test_archives_are_read_within_limits(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.png", tiny.png(0))
        archive.writestr("large", b"\0" * 10_000_000)
    found = Archive("zip", LocalContext(tmp_path))
    assert found.read("./a/b.png") == tiny.png(0)
    with pytest.raises(BadImageError, match="not in the archive"):
        found.read("a/c.png")
    monkeypatch.setattr("methods.select_subset.data.images.MAX_BYTES", 1_000_000)
    with pytest.raises(BadImageError, match="larger than 1000000 bytes"):
        found.read("large")
    found.close()
    (tmp_path / "none").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(JobError, match="neither a zip archive nor an uncompressed tar"):
        Archive("none", LocalContext(tmp_path))


def test_a_model_as_it_is(model, tmp_path):
    spec = request(model)
    spec["model"]["fine_tune"] = None
    result = select(tmp_path, **spec)
    assert array(tmp_path, result, "features")["singular_values"].shape == (IMAGES, 1, 5)
    assert any("one checkpoint" in warning for warning in result.warnings)
    official = select(tmp_path, **spec | {"model": spec["model"] | {"attention": "official"}})
    assert official.input_digest != result.input_digest


def test_models_must_be_declared_and_readable(tmp_path):
    spec = Spec.model_validate(request("nobody"))
    with pytest.raises(JobError, match="There is no model 'nobody'"):
        run(spec, LocalContext(tmp_path, spec, models=Models()))
    with pytest.raises(JobError, match="cannot be loaded") as caught:
        run(spec, LocalContext(tmp_path, spec, models=Models({"nobody": declared(tmp_path)})))
    assert caught.value.code == "model_unavailable"


def declared(folder):
    from methods.inference.model_registry import ModelDeclaration

    return ModelDeclaration(path=str(folder / "empty"))


def test_a_method_of_images_needs_images(model, tmp_path):
    rows = [conversation(n, False) for n in range(20)]
    with pytest.raises(JobError, match="xmas needs images"):
        select(tmp_path, **request(model, dataset={"rows": rows}))
    result = select(tmp_path, **request(model, dataset={"rows": rows}, method="loss", params={}))
    assert result.selected == 8
    assert "contact_sheet" not in result.artifacts


class KilledError(Exception):
    """Stands for a worker that is gone."""


def trained(folder, model, plan, tell=lambda done, steps: None, identity="x"):
    """Train on the inline rows, and the weights after it."""
    from methods.select_subset.proxy.model.proxy import load_proxy
    from methods.select_subset.proxy.rows.conversations import turns_of

    proxy = load_proxy(model, Models(any_path=True), 512)
    rows = [proxy.encoder(turns_of(conversation(n, True), 1), [tiny.png(n)]) for n in range(IMAGES)]
    context = LocalContext(folder)
    kept = ResumeStore(context, identity)
    found = fine_tune(
        proxy,
        lambda batches: ([rows[p] for p in places] for places in batches),
        IMAGES,
        plan,
        kept,
        tell,
        context.metric,
    )
    assert np.isfinite(list(context.metrics["loss"].values())).all()
    return found, proxy


PLAN = Plan(epochs=3, checkpoints=4, rows=6, learning_rate=1e-2, vision=True)


def test_training_goes_on_where_it_stopped(model, tmp_path):
    whole, proxy = trained(tmp_path / "whole", model, PLAN)
    assert whole.marks == [3, 6, 9, 12]
    seen = []

    def stop(done, steps):
        seen.append(done)
        if done == 8 and len(seen) == 9:
            raise KilledError

    with pytest.raises(KilledError):
        trained(tmp_path / "cut", model, PLAN, stop)
    again, second = trained(tmp_path / "cut", model, PLAN, stop)
    # Two checkpoints were kept, so step 6 is the first to run again.
    assert seen == [*range(9), *range(6, 12)]
    assert again == whole
    for name, value in proxy.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_the_cut_of_a_step_changes_nothing(model, tmp_path):
    whole, _ = trained(tmp_path / "whole", model, PLAN)
    parts, _ = trained(tmp_path / "parts", model, Plan(**{**vars(PLAN), "tokens": 40}))
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=2e-4)


def test_the_image_encoder_is_left_as_it_is_unless_asked(model, tmp_path):
    frozen = Plan(epochs=1, checkpoints=1, rows=8, learning_rate=1e-2)
    before = trained(tmp_path / "0", model, Plan(rows=99, learning_rate=1e-30))[1].model
    start = {n: v.clone() for n, v in before.state_dict().items()}
    for plan, moved in ((frozen, False), (Plan(**{**vars(frozen), "vision": True}), True)):
        after = trained(tmp_path / str(moved), model, plan)[1].model.state_dict()
        changed = {n for n in start if not torch.allclose(start[n], after[n], atol=1e-6)}
        assert any("vision_tower" in n for n in changed) == moved
        assert any("language_model" in n for n in changed)
        assert any("projector" in n for n in changed)


def test_a_loss_that_explodes_is_named(model, tmp_path):
    with pytest.raises(JobError, match=r"not finite at step \d+; lower") as caught:
        trained(tmp_path, model, Plan(rows=4, learning_rate=1e30, warmup=0, epochs=3))
    assert caught.value.code == "numerical_failure"


def test_what_is_kept_is_found_by_the_next_attempt(tmp_path):
    kept = ResumeStore(LocalContext(tmp_path), "x")
    kept.keep("piece", b"of x")
    ResumeStore(LocalContext(tmp_path), "y").keep("piece", b"of y")
    for folder in (tmp_path / "work").glob("proxy-*"):
        shutil.rmtree(folder)
    assert ResumeStore(LocalContext(tmp_path), "x").find("piece") == b"of x"
    assert ResumeStore(LocalContext(tmp_path), "y").find("piece") == b"of y"
    assert ResumeStore(LocalContext(tmp_path), "z").find("piece") is None


def test_every_epoch_visits_every_row_once():
    plan = Plan(epochs=2, rows=7)
    orders = np.concatenate(list(row_order(plan, 21)))
    assert sorted(orders[:21].tolist()) == sorted(orders[21:].tolist()) == list(range(21))
    assert orders[:21].tolist() != orders[21:].tolist()
    assert Plan(checkpoints=7, rows=32).marks(10_000) == [45, 89, 134, 179, 224, 268, 313]
    assert Plan(checkpoints=7, rows=32).marks(64) == [1, 2]
    rates = [Plan(learning_rate=1, warmup=0.1).rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == 1
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[-1] > 0
