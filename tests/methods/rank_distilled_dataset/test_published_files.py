"""Candidates and data sets as the field publishes them, and what would be lost in silence."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from methods.errors import JobError
from methods.local import LocalContext
from methods.rank_distilled_dataset.data import candidates, datasets
from methods.rank_distilled_dataset.protocol import scores
from methods.rank_distilled_dataset.spec import Candidate, Dataset

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(20, 1, 8, 8)).astype(np.float32)
SOFT = RNG.normal(size=(20, 10)).astype(np.float32)
#: Two images a class, not class by class.
LABELS = np.arange(20) % 10


@pytest.fixture(scope="module")
def real() -> datasets.RealData:
    return datasets.load(Dataset(name="digits"), None)  # type: ignore[arg-type]


def load(real: datasets.RealData, folder: Path, data: bytes, **fields: Any) -> candidates.Loaded:
    (folder / "c").write_bytes(data)
    given = Candidate.model_validate({"name": "mine", "images": "c", **fields})
    return candidates.load(given, real, 2, LocalContext(folder))


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def pt(value: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


PAIR = [torch.from_numpy(IMAGES), torch.from_numpy(LABELS)]


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("sets", [1, 3])
def test_files_of_the_dc_code_base(
    real: datasets.RealData, tmp_path: Path, new: bool, sets: int
) -> None:
    accuracies = {"ConvNet": [np.float64(61.2), np.float32(60.1)], "n": np.array([1.0, 2.0])}
    content = {"data": [PAIR] * sets, "accs_all_exps": accuracies}
    found = load(real, tmp_path, pt(content, _use_new_zipfile_serialization=new))
    assert found.data.labels.tolist() == LABELS.tolist()
    np.testing.assert_allclose(found.data.images, IMAGES)
    assert any("3 sets of images" in one for one in found.warnings) == (sets == 3)


def test_the_second_of_a_pair_is_its_labels(real: datasets.RealData, tmp_path: Path) -> None:
    found = load(real, tmp_path, pt(PAIR), array="0")
    assert found.data.labels.tolist() == LABELS.tolist()


def test_a_file_with_more_says_what_and_how_to_convert_it(
    real: datasets.RealData, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=r"holds a pathlib\.\w+Path.*torch\.save") as caught:
        load(real, tmp_path, pt({"images": PAIR[0], "where": Path("x")}))
    assert "\x1b" not in caught.value.message


@pytest.mark.parametrize(
    "name", ["labels", "targets", "label", "target", "y", "y_train", "train_labels"]
)
def test_labels_by_any_of_their_names(real: datasets.RealData, tmp_path: Path, name: str) -> None:
    for given in (LABELS, LABELS[:, None], np.eye(10)[LABELS], LABELS.astype(np.float32)):
        found = load(real, tmp_path, npz(images=IMAGES, **{name: given}))
        assert found.data.labels.tolist() == LABELS.tolist()
        assert not found.warnings


def test_centred_one_hot_labels_are_read_and_told(real: datasets.RealData, tmp_path: Path) -> None:
    found = load(real, tmp_path, npz(images=IMAGES, labels=np.eye(10)[LABELS] - 0.1))
    assert found.data.labels.tolist() == LABELS.tolist()
    assert "centred one-hot" in found.warnings[0]
    with pytest.raises(JobError, match="labels that are soft"):
        load(real, tmp_path, npz(images=IMAGES, labels=SOFT))


def test_hard_labels_beside_soft_ones_are_read(real: datasets.RealData, tmp_path: Path) -> None:
    soft = np.eye(10, dtype=np.float32)[LABELS] * 9
    for extra in ({"labels": LABELS}, {"targets": LABELS}):
        data = npz(images=IMAGES, soft_labels=soft, **extra)
        found = load(real, tmp_path, data, labels={"kind": "soft_S"})
        assert found.data.labels.tolist() == LABELS.tolist()
        assert found.data.targets is not None
        np.testing.assert_allclose(found.data.targets, soft)


def test_gray_images_of_any_shape(real: datasets.RealData, tmp_path: Path) -> None:
    assert load(real, tmp_path, npz(images=IMAGES[:, 0])).data.images.shape == (20, 1, 8, 8)
    colour = datasets.load(Dataset(name="digits", channels=3), None)  # type: ignore[arg-type]
    for images in (IMAGES, IMAGES[:, 0], np.moveaxis(IMAGES, 1, 3)):
        found = load(colour, tmp_path, npz(images=images))
        assert found.data.images.shape == (20, 3, 8, 8)
        np.testing.assert_allclose(found.data.images[:, 2], IMAGES[:, 0])
        assert "repeated over three channels" in found.warnings[0]


def test_copies_of_test_images_are_told(real: datasets.RealData, tmp_path: Path) -> None:
    images = IMAGES.copy()
    images[:5] = real.test.images[7:12].numpy()
    found = load(real, tmp_path, npz(images=images))
    assert "5 of its images are copies of images of the test part" in found.warnings[0]


def picture(seed: int, mode: str = "L", form: str = "PNG", side: int = 8) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    image = Image.fromarray(values)
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    image.save(stream, form)
    return stream.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def folders(classes: list[str], **more: bytes) -> bytes:
    files = {
        f"set/{name}/{n}.png": picture(9 * k + n) for k, name in enumerate(classes) for n in (0, 1)
    }
    return zipped({**files, **more})


def test_what_the_finder_adds_is_left_out(real: datasets.RealData, tmp_path: Path) -> None:
    hidden = {"__MACOSX/set/0/._a.png": b"x", "set/.DS_Store": b"x"}
    hidden |= {"set/.ipynb_checkpoints/a.png": b"x"}
    data = folders([str(n) for n in range(10)], **hidden)
    assert len(load(real, tmp_path, data, value_space="uint8").data.labels) == 20


def named(count: int) -> datasets.RealData:
    """A data set whose classes have words for names."""
    found = datasets.load(Dataset(name="digits"), None)  # type: ignore[arg-type]
    found.classes = [f"word{n}" for n in range(count)]
    return found


def test_folders_are_mapped_only_where_that_is_certain(tmp_path: Path) -> None:
    real = named(10)
    numbers = [str(n) for n in range(10)]
    for names in (numbers, [f"{n:02}" for n in range(10)], [f"WORD{n}" for n in range(10)]):
        found = load(real, tmp_path, folders(names), value_space="uint8")
        first = picture(9 * 3)
        place = found.data.labels.tolist().index(3)
        shown = real.shown(found.data.images[place : place + 1].numpy())[0, 0]
        expected = np.asarray(Image.open(io.BytesIO(first)).convert("L")) / 255
        np.testing.assert_allclose(shown, expected, atol=1e-6)
    for names in ([f"kind{n}" for n in range(10)], [str(n + 1) for n in range(10)]):
        with pytest.raises(JobError, match=r"neither the 10 classes of the data set, word0"):
            load(real, tmp_path, folders(names), value_space="uint8")


def test_hundred_folders_by_number_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    from methods.rank_distilled_dataset.data.dataset_formats import read_folders

    data = zipped({f"{n}/a.png": picture(n) for n in range(100)})
    _, names = read_folders(io.BytesIO(data), "zip", lambda: None, [])
    assert names == [str(n) for n in range(100)]


@pytest.mark.parametrize("first", ["L", "RGB"])
@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP", "JPEG"])
def test_gray_and_coloured_pictures_of_any_format(tmp_path: Path, first: str, form: str) -> None:
    colour = datasets.load(Dataset(name="digits", channels=3), None)  # type: ignore[arg-type]
    files = {}
    for n in range(20):
        mode = first if n == 0 else ["RGB", "L"][n % 2]
        files[f"{n // 2}/{n}.{form.lower()}"] = picture(n, mode, form)
    found = load(colour, tmp_path, zipped(files), value_space="uint8")
    assert found.data.images.shape == (20, 3, 8, 8)


def test_pictures_are_resized_on_request(real: datasets.RealData, tmp_path: Path) -> None:
    files = {f"{n // 2}/{n}.png": picture(n, side=8 + n) for n in range(20)}
    with pytest.raises(JobError, match="say `resize`"):
        load(real, tmp_path, zipped(files), value_space="uint8")
    found = load(real, tmp_path, zipped(files), value_space="uint8", resize=True)
    assert found.data.images.shape == (20, 1, 8, 8)


def test_tiny_imagenet_as_published(tmp_path: Path) -> None:
    root, files, lines = "tiny-imagenet-200", {}, []
    for n in range(200):
        files[f"{root}/train/n{n:04}/images/n{n:04}_0.JPEG"] = picture(n, "RGB", "JPEG")
        files[f"{root}/val/images/val_{n}.JPEG"] = picture(n + 500, "RGB", "JPEG")
        lines.append(f"val_{n}.JPEG\tn{n:04}\t0\t0\t8\t8\n")
    files[f"{root}/val/val_annotations.txt"] = "".join(lines).encode()
    files |= {f"{root}/test/images/test_{n}.JPEG": picture(n, "RGB", "JPEG") for n in range(3)}
    (tmp_path / "tiny.zip").write_bytes(zipped(files))
    spec = Dataset.model_validate({"name": "tiny-imagenet", "files": ["tiny.zip"]})
    found = datasets.load(spec, LocalContext(tmp_path))
    assert (len(found.train.labels), len(found.test.labels)) == (200, 200)
    assert "3 pictures without a label were left out" in found.warnings[0]


def test_the_smaller_file_of_cifar_100_is_the_test_file(tmp_path: Path) -> None:
    for name, count in (("a_test.bin", 100), ("b_train.bin", 200)):
        record = [
            bytes([0, n % 100]) + RNG.integers(0, 256, 3072, dtype=np.uint8).tobytes()
            for n in range(count)
        ]
        (tmp_path / name).write_bytes(b"".join(record))
    spec = Dataset.model_validate({"name": "cifar100", "files": ["a_test.bin", "b_train.bin"]})
    found = datasets.load(spec, LocalContext(tmp_path))
    assert (len(found.train.labels), len(found.test.labels)) == (200, 100)
    assert "a_test.bin is taken as the test file" in found.warnings[0]


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_equal_candidates_are_told_apart_in_one_of_ten_jobs(runs: int) -> None:
    rng = np.random.default_rng(runs)
    jobs = 1200
    told = {2: 0, 5: 0}
    first = 0
    for _ in range(jobs):
        for count in told:
            values = rng.normal(size=(count, runs))
            means = values.mean(axis=1)
            best, second = np.argsort(-means)[:2]
            win = scores.win_probabilities(values, 1000, np.random.default_rng(1))
            told[count] += win[best, second] >= 0.95
            if count == 5:
                p = scores.first_probabilities(values, 1000, np.random.default_rng(1))
                first += p[best] >= 0.95
    # Two sides of 0.05 each, and a standard error of 0.009 over as many jobs.
    assert told[2] / jobs == pytest.approx(0.10, abs=0.035)
    assert told[5] / jobs < 0.10
    assert first / jobs < 0.03


@pytest.mark.parametrize(("runs", "draw", "noise"), [(3, 1.0, 0.1), (5, 1.0, 1.0), (10, 1.0, 0.3)])
def test_the_interval_of_a_draw_holds_in_19_of_20_jobs(
    runs: int, draw: float, noise: float
) -> None:
    rng = np.random.default_rng(runs)
    held = []
    for _ in range(4000):
        own = rng.normal() * draw + rng.normal(size=runs) * noise
        random = rng.normal(size=runs) * draw + rng.normal(size=runs) * noise
        half = scores.draw_half_width(own, random)
        assert half is not None
        held.append(abs(own.mean() - random.mean()) <= half)
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_parts_with_other_channels_are_refused(tmp_path: Path) -> None:
    labels = np.arange(20) % 10
    arrays = {"y_train": labels, "y_test": labels}
    for name, channels in (("x_train", 3), ("x_test", 2)):
        arrays[name] = RNG.integers(0, 256, (20, channels, 8, 8), dtype=np.uint8)
    (tmp_path / "set.npz").write_bytes(npz(**arrays))
    spec = Dataset.model_validate({"name": "custom", "files": ["set.npz"]})
    with pytest.raises(JobError, match=r"shape \(3, 8, 8\), test images \(2, 8, 8\)"):
        datasets.load(spec, LocalContext(tmp_path))


def test_colour_among_gray_pictures_counts_against_the_limit(
    real: datasets.RealData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from methods.rank_distilled_dataset.data import dataset_formats

    files = {f"{n // 2}/{n:02}.png": picture(n, "RGB" if n == 9 else "L") for n in range(20)}
    monkeypatch.setattr(dataset_formats, "MAX_BYTES", 20 * 64 * 2)
    monkeypatch.setattr(dataset_formats, "open_zip", lambda stream, *_: zipfile.ZipFile(stream))
    with pytest.raises(JobError, match=r"images of shape \(20, 3, 8, 8\)"):
        load(real, tmp_path, zipped(files), value_space="uint8")
