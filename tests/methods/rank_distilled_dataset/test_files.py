"""Files of data sets and candidates: what is read, and the reason for what is not."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from methods.arrays import named
from methods.errors import JobError
from methods.local import LocalContext
from methods.rank_distilled_dataset.data import candidates, dataset_formats, datasets, images
from methods.rank_distilled_dataset.spec import Candidate, Dataset

RNG = np.random.default_rng(0)


def bytes_of(save: Any) -> io.BytesIO:
    stream = io.BytesIO()
    save(stream)
    stream.seek(0)
    return stream


def npz(**arrays: Any) -> io.BytesIO:
    return bytes_of(lambda s: np.savez(s, **arrays))


def zipped(files: dict[str, bytes]) -> io.BytesIO:
    def save(stream: io.BytesIO) -> None:
        with zipfile.ZipFile(stream, "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)

    return bytes_of(save)


def safetensors(arrays: dict[str, np.ndarray], kind: str = "F32") -> io.BytesIO:
    header, at, body = {}, 0, b""
    for name, array in arrays.items():
        data = array.tobytes()
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [at, at + len(data)],
        }
        at, body = at + len(data), body + data
    text = json.dumps(header).encode()
    return io.BytesIO(len(text).to_bytes(8, "little") + text + body)


# -- arrays ----------------------------------------------------------------------------------


def test_arrays_of_every_format() -> None:
    values = RNG.normal(size=(2, 3)).astype(np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    tensor = torch.from_numpy(values)
    for stream, name in (
        (npz(images=values), "images"),
        (bytes_of(lambda s: np.save(s, values)), "array"),
        (safetensors({"images": values}), "images"),
        (bytes_of(lambda s: torch.save({"data": [[tensor, tensor + 1]]}, s)), "data.0.0"),
    ):
        found = named.open_arrays(stream, "file")
        assert name in found
        np.testing.assert_array_equal(found.read(name), values)
    found = named.open_arrays(safetensors({"x": upper}, "BF16"), "file")
    np.testing.assert_allclose(found.read("x"), values, rtol=1e-2)


def read_first(stream: io.BytesIO) -> np.ndarray:
    found = named.open_arrays(stream, "file")
    return found.read(found.names[0])


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("/nonexistent/touched"),)


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (io.BytesIO(b"hello there"), "is no npz, npy, safetensors"),
        (io.BytesIO(pickle.dumps([1])), "bare pickle, which is never loaded"),
        (bytes_of(lambda s: torch.save({"x": Harmful()}, s)), "more than tensors"),
        (bytes_of(lambda s: np.save(s, np.array([{}]), allow_pickle=True)), "only numbers"),
        (npz(x=np.array(["a"])), "only numbers"),
        (io.BytesIO(npz(x=np.zeros(99)).getvalue()[:60]), "not readable"),
        (safetensors({"x": np.zeros(3, np.float32)}, "F64"), "offsets do not fit"),
        (safetensors({"x": np.zeros(3, np.float32)}, "C64"), "C64 is not read"),
        (zipped({"readme.txt": b"x"}), "without arrays"),
    ],
)
def test_wrong_array_files_are_refused_with_the_reason(stream: io.BytesIO, reason: str) -> None:
    with pytest.raises(JobError, match=reason) as caught:
        read_first(stream)
    assert caught.value.code == "input_invalid"
    assert caught.value.message.startswith("file")


def test_an_archive_that_unpacks_to_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named, "MAX_BYTES", 1000)
    with pytest.raises(JobError, match="unpacks to") as caught:
        named.open_arrays(bytes_of(lambda s: np.savez_compressed(s, x=np.zeros(999))), "f")
    assert caught.value.code == "too_large"
    header = bytes_of(lambda s: np.save(s, np.zeros(999)))
    with pytest.raises(JobError, match="unpacks to"):
        named.open_arrays(header, "f").read("array")


def test_a_header_that_promises_more_than_there_is() -> None:
    data = bytearray(bytes_of(lambda s: np.save(s, np.zeros(9))).getvalue())
    data[data.index(b"(9,)") : data.index(b"(9,)") + 4] = b"(90)"
    stream = io.BytesIO(bytes(data).replace(b"(90)", b"(8,)"))
    assert named.open_arrays(stream, "f").read("array").shape == (8,)
    short = io.BytesIO(bytes_of(lambda s: np.save(s, np.zeros(9))).getvalue()[:-8])
    with pytest.raises(JobError, match="ends after 64 of 72"):
        named.open_arrays(short, "f").read("array")


# -- pictures --------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
def test_png_round_trip(seed: int, height: int, width: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
    image[::2] = image[0]
    given_image = image[:, :, 0] if channels == 1 else image
    np.testing.assert_array_equal(images.read_picture(images.write_png(given_image), "x"), image)


def test_every_filter_of_png_is_undone() -> None:
    import struct
    import zlib

    image = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8).astype(int)
    lines = b""
    for row in range(5):
        out = []
        for column in range(7):
            for c in range(3):
                a = image[row, column - 1, c] if column else 0
                b = image[row - 1, column, c] if row else 0
                d = image[row - 1, column - 1, c] if row and column else 0
                paeth = min((abs(b - d), 0, a), (abs(a - d), 1, b), (abs(a + b - 2 * d), 2, d))[2]
                guess = (0, a, b, (a + b) // 2, paeth)[row]
                out.append((image[row, column, c] - guess) % 256)
        lines += bytes([row, *out])

    def png(width: int, height: int) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
            for k, d in parts
        )

    data = png(7, 5)
    np.testing.assert_array_equal(images.read_picture(data, "x"), image)
    with pytest.raises(JobError, match="damaged PNG"):
        images.read_picture(data[:60], "x")
    with pytest.raises(JobError, match="5000x5000"):
        images.read_picture(png(5000, 5000), "x")
    with pytest.raises(JobError, match="4900000000 pixels"):
        images.read_picture(png(70_000, 70_000), "x")
    with pytest.raises(JobError, match="none of PNG, JPEG"):
        images.read_picture(b"GIF89a", "x")


def test_grid_places_images_in_rows() -> None:
    shown = np.stack([np.full((1, 2, 3), value) for value in (0.0, 0.5, 1.0)])
    found = images.grid(shown, columns=2)
    assert found.shape == (7, 9)
    assert found[1:3, 1:4].tolist() == [[0] * 3] * 2
    assert found[1:3, 5:8].tolist() == [[128] * 3] * 2
    assert found[4, 1] == 255


# -- published formats -----------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def put(folder: Path, files: dict[str, bytes]) -> list[str]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return list(files)


def test_mnist_from_idx_files_in_any_order(tmp_path: Path) -> None:
    labels = np.arange(30) % 10
    images = RNG.integers(0, 256, (30, 28, 28))
    files = {
        "a": gzip.compress(idx(labels)),
        "b": idx(labels[:10]),
        "c": gzip.compress(idx(images)),
        "d": idx(images[:10]),
    }
    spec = Dataset.model_validate({"name": "fashion-mnist", "files": put(tmp_path, files)})
    real = datasets.load(spec, LocalContext(tmp_path))
    assert real.shape == (1, 28, 28)
    assert (len(real.train.labels), len(real.test.labels)) == (30, 10)
    assert real.train.labels.tolist() == labels.tolist()
    mean = images.astype(np.float32).mean() / 255
    assert real.mean[0] == pytest.approx(mean, rel=1e-5)
    np.testing.assert_allclose(
        real.shown(real.test.images.numpy())[:, 0], images[:10] / 255, atol=1e-6
    )
    (tmp_path / "b").write_bytes(idx(labels[:10])[:-1])
    with pytest.raises(JobError, match="says shape"):
        datasets.load(spec, LocalContext(tmp_path))


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_from_its_archive_or_its_bin_files(classes: int, tmp_path: Path) -> None:
    count = classes
    pixels = RNG.integers(0, 256, (count, 3072), dtype=np.uint8)
    fine = np.arange(count, dtype=np.uint8)[:, None]
    before = [fine] if classes == 10 else [fine // 5, fine]
    records = np.hstack([*before, pixels]).tobytes()
    names = ["data_batch_1.bin", "data_batch_2.bin"] if classes == 10 else ["train.bin"]
    test = "test_batch.bin" if classes == 10 else "test.bin"

    def save(stream: io.BytesIO) -> None:
        with tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name in [*names, test]:
                entry = tarfile.TarInfo(f"cifar/{name}")
                entry.size = len(records)
                archive.addfile(entry, io.BytesIO(records))

    (tmp_path / "archive").write_bytes(bytes_of(save).getvalue())
    for name in (*names, test):
        (tmp_path / name).write_bytes(records)
    context, name = LocalContext(tmp_path), f"cifar{classes}"
    whole = Dataset.model_validate({"name": name, "files": ["archive"]})
    parts = Dataset.model_validate({"name": name, "files": [*names, test]})
    one, two = datasets.load(whole, context), datasets.load(parts, context)
    assert one.digest == two.digest
    assert len(one.train.labels) == len(names) * count
    unit = pixels[3].reshape(3, 32, 32) / 255
    usual = (unit - np.array(one.mean)[:, None, None]) / np.array(one.std)[:, None, None]
    np.testing.assert_allclose(one.test.images[3], usual, atol=1e-5)
    (tmp_path / test).write_bytes(records[:-1])
    with pytest.raises(JobError, match="whole records"):
        datasets.load(parts, context)


def folder_zip(parts: dict[str, int], side: int = 4) -> dict[str, bytes]:
    files = {}
    for place, (folder, count) in enumerate(parts.items()):
        for number in range(count):
            image = np.full((side, side, 3), 10 * place + number, dtype=np.uint8)
            files[f"set/{folder}/{number}.png"] = images.write_png(image)
    return files


def test_an_image_folder_as_a_data_set(tmp_path: Path) -> None:
    files = folder_zip({"train/zebra": 3, "train/ant": 2, "val/zebra": 1, "val/ant": 1})
    (tmp_path / "f").write_bytes(zipped(files).getvalue())
    spec = Dataset.model_validate({"name": "custom", "files": ["f"], "normalise": "none"})
    real = datasets.load(spec, LocalContext(tmp_path))
    assert real.classes == ["ant", "zebra"]
    assert real.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert (real.train.images[:, 0, 0, 0] * 255).round().tolist() == [10, 11, 0, 1, 2]


def test_tiny_imagenet_lists_the_classes_of_its_validation_images() -> None:
    files = {
        k.replace("train/", "train/"): v for k, v in folder_zip({"train/n1/images": 1}).items()
    }
    files |= folder_zip({"train/n0/images": 2})
    image = images.write_png(np.zeros((4, 4, 3), dtype=np.uint8))
    files |= {"set/val/images/a.png": image, "set/val/images/b.png": image}
    files["set/val/val_annotations.txt"] = b"a.png\tn1\t0\t0\nb.png\tn0\t0\t0\n"
    parts, names = dataset_formats.read_folders(zipped(files), "zip", lambda: None, [])
    assert names == ["n0", "n1"]
    assert parts["test"].labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"../a/x.png": b""}, "links and paths outside"),
        ({"/a/x.png": b""}, "links and paths outside"),
        ({"x.png": b""}, "no class folder"),
        ({"a/readme.txt": b""}, "no .png, .jpg"),
        ({"a/x.png": b"GIF"}, "none of PNG, JPEG"),
        ({**folder_zip({"a": 1}), **folder_zip({"b": 1}, side=5)}, "different sizes"),
        (folder_zip({"train/a": 1, "train/b": 1, "test/a": 1}), "no test images of b"),
    ],
)
def test_wrong_folders_are_refused_with_the_reason(files: dict[str, bytes], reason: str) -> None:
    with pytest.raises(JobError, match=reason):
        dataset_formats.read_folders(zipped(files), "zip", lambda: None, [])


def test_a_link_in_a_zip_is_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("a/x.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    stream.seek(0)
    with pytest.raises(JobError, match="links"):
        dataset_formats.read_folders(stream, "zip", lambda: None, [])


def test_photo_patches() -> None:
    real = datasets.load(Dataset(name="photo-patches-10"), None)  # type: ignore[arg-type]
    assert real.shape == (3, 32, 32)
    assert np.bincount(real.train.labels).tolist() == [200] * 10
    assert np.bincount(real.test.labels).tolist() == [100] * 10
    assert float(real.train.images.mean()) == pytest.approx(0, abs=1e-4)


def test_custom_arrays_and_zca(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    labels = np.arange(40) % 2
    np.savez(tmp_path / "f.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    spec = {"name": "custom", "files": ["f.npz"], "zca": True}
    real = datasets.load(Dataset.model_validate(spec), LocalContext(tmp_path))
    assert real.shape == (3, 4, 4)
    flat = real.train.images.reshape(40, -1).double()
    assert float(flat.mean()) == pytest.approx(0, abs=1e-5)
    np.savez(tmp_path / "f.npz", x_train=images, y_train=labels + 1, x_test=images, y_test=labels)
    with pytest.raises(JobError, match="training part of custom has images of 2 classes, 3"):
        datasets.load(Dataset.model_validate(spec), LocalContext(tmp_path))


def test_held_out_rows_are_a_share_of_each_class() -> None:
    labels = np.repeat(np.arange(4), [50, 30, 10, 1])
    held = datasets.hold_out(labels, 0.2)
    assert np.bincount(labels[held]).tolist() == [10, 6, 2, 1]


def test_subsets_have_ipc_rows_of_each_class() -> None:
    labels = np.repeat(np.arange(3), 20)
    rows = datasets.draw_subset(labels, 5, seed=1)
    assert labels[rows].tolist() == np.repeat(np.arange(3), 5).tolist()
    assert len(set(rows.tolist())) == 15
    assert rows.tolist() == datasets.draw_subset(labels, 5, seed=1).tolist()
    assert rows.tolist() != datasets.draw_subset(labels, 5, seed=2).tolist()
    with pytest.raises(JobError, match="Class 0 has 20 training images, ipc is 21"):
        datasets.draw_subset(labels, 21, seed=1)


# -- candidates ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> datasets.RealData:
    return datasets.load(Dataset(name="digits"), None)  # type: ignore[arg-type]


IMAGES = RNG.normal(size=(20, 1, 8, 8)).astype(np.float32)
SOFT = RNG.normal(size=(20, 10)).astype(np.float32)
PROBABILITIES = np.exp(SOFT) / np.exp(SOFT).sum(axis=1, keepdims=True)


def load(real: datasets.RealData, folder: Path, arrays: Any, **fields: Any) -> candidates.Loaded:
    stream = arrays if isinstance(arrays, io.BytesIO) else npz(**arrays)
    (folder / "c").write_bytes(stream.getvalue())
    given_fields = {"name": "mine", "images": "c", **fields}
    return candidates.load(Candidate.model_validate(given_fields), real, 2, LocalContext(folder))


def test_value_spaces_say_the_same(real: datasets.RealData, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8)
    unit = (pixels / 255).astype(np.float32)
    found = [
        load(real, tmp_path, {"images": given_images}, value_space=space).data.images
        for space, given_images in (
            ("uint8", pixels),
            ("unit", unit),
            ("normalized", real.normalised(unit)),
            ("unit", np.moveaxis(unit, 1, 3)),
        )
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-5)


def test_labels(real: datasets.RealData, tmp_path: Path) -> None:
    plain = load(real, tmp_path, {"images": IMAGES})
    assert plain.data.labels.tolist() == np.repeat(np.arange(10), 2).tolist()
    mixed = np.arange(20) % 10
    assert load(real, tmp_path, {"images": IMAGES, "labels": mixed}).data.labels.tolist() == (
        mixed.tolist()
    )
    soft = {"kind": "soft_S", "soft_space": "probs"}
    found = load(real, tmp_path, {"images": IMAGES, "soft_labels": PROBABILITIES}, labels=soft)
    assert found.data.targets is not None
    np.testing.assert_allclose(found.data.targets.softmax(dim=1), PROBABILITIES, atol=1e-6)
    assert found.label_bytes == PROBABILITIES.nbytes
    assert "class order may differ" in found.warnings[0]


def test_a_folder_as_a_candidate(real: datasets.RealData, tmp_path: Path) -> None:
    files = {}
    for digit in range(10):
        for number in range(2):
            image = np.full((8, 8), 20 * digit + number, dtype=np.uint8)
            files[f"{digit}/{number}.png"] = images.write_png(image)
    found = load(real, tmp_path, zipped(files), value_space="uint8")
    assert found.data.labels.tolist() == np.repeat(np.arange(10), 2).tolist()


@pytest.mark.parametrize(
    ("arrays", "fields", "reason"),
    [
        ({"images": IMAGES[:19]}, {}, "has 19 images; ipc 2 times 10 classes are 20"),
        ({"images": IMAGES[:, :, :7]}, {}, r"shape \(1, 7, 8\); those of digits are \(1, 8, 8\)"),
        ({"images": IMAGES[:, 0, 0]}, {}, r"\[N, C, H, W\]"),
        ({"a": IMAGES, "b": IMAGES}, {}, "say which array has the images"),
        ({"a": IMAGES}, {"array": "b"}, "has no array 'b', only a"),
        ({"images": np.where(IMAGES > 2, np.nan, IMAGES)}, {}, "not finite in image"),
        ({"images": IMAGES * 99}, {}, "not normalized"),
        ({"images": IMAGES}, {"value_space": "unit"}, "not unit; are they normalized"),
        ({"images": abs(IMAGES) / 9}, {"value_space": "uint8"}, "are they `unit`"),
        ({"images": IMAGES, "labels": np.arange(20)}, {}, "labels from 0 to 19; classes: 10"),
        ({"images": IMAGES, "labels": np.zeros(20, int)}, {}, "20 images of class 0; ipc is 2"),
        ({"images": IMAGES, "labels": np.zeros(19, int)}, {}, r"hard labels of shape \(19,\)"),
        ({"images": IMAGES}, {"labels": {"kind": "soft_S"}}, "none in its file"),
        (
            {"images": IMAGES, "labels": PROBABILITIES},
            {"labels": {"kind": "soft_S"}},
            "are probabilities; say soft_space `probs`",
        ),
        (
            {"images": IMAGES, "labels": SOFT},
            {"labels": {"kind": "soft_S", "soft_space": "probs"}},
            "no distribution",
        ),
        (
            {"images": IMAGES, "labels": SOFT[:, :9]},
            {"labels": {"kind": "soft_S"}},
            r"shape \(20, 9\), not \(20, 10\)",
        ),
    ],
)
def test_wrong_candidates_are_refused_with_the_reason(
    real: datasets.RealData, tmp_path: Path, arrays: Any, fields: Any, reason: str
) -> None:
    with pytest.raises(JobError, match=reason) as caught:
        load(real, tmp_path, arrays, **fields)
    assert caught.value.code == "input_invalid"
    assert "mine" in caught.value.message


def test_plain_pixels_said_to_be_normalised_are_noticed(
    real: datasets.RealData, tmp_path: Path
) -> None:
    found = load(real, tmp_path, {"images": abs(IMAGES) / 9})
    assert "plain pixels" in found.warnings[0]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("L", (40,)), ("LA", (40,)), ("P", (40, 40, 40)), ("RGBA", (40, 40, 40)), ("1", (0,))],
)
def test_pictures_of_every_mode_become_gray_or_colour(mode: str, expected: tuple[int]) -> None:
    stream = io.BytesIO()
    Image.new("L", (3, 2), 40).convert(mode).save(stream, "PNG")
    found = images.read_picture(stream.getvalue(), "x")
    assert found.shape == (2, 3, len(expected))
    assert found[0, 0].tolist() == list(expected)


def test_sixteen_bits_become_eight() -> None:
    stream = io.BytesIO()
    values = np.array([[0, 257, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(stream, "PNG")
    assert images.read_picture(stream.getvalue(), "x")[:, :, 0].tolist() == [[0, 1, 255]]
