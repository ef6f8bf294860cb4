"""Data sets in the formats they are published in: idx, CIFAR binary, image folders in a zip."""

from __future__ import annotations

import gzip
import math
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from methods.arrays.named import MAX_BYTES, MAX_DIRECTORY_BYTES, invalid
from methods.arrays.unpacking import Unpacked, open_zip, size_of
from methods.errors import JobError
from methods.rank_distilled_dataset.data.images import read_picture
from methods.typing import ByteArray

MAX_FILES = 300_000
#: One picture, or the list of classes.
MAX_MEMBER_BYTES = 64 << 20
#: Three times the published archives, unpacked.
MAX_CIFAR_BYTES = 600 << 20
_MAX_MEMBERS = 1000
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_PARTS = {"train": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}


class Labelled(NamedTuple):
    """Images [N, channels, height, width], uint8, and classes [N], int64."""

    images: NDArray[Any]
    labels: NDArray[np.int64]


def read_limited(stream: Any, label: str) -> bytes:
    """All bytes of a stream, refused past the limit."""
    data: bytes = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise JobError("too_large", f"{label} unpacks to more than {MAX_BYTES} bytes.")
    return data


def plain(stream: BinaryIO, label: str) -> bytes:
    """The bytes of a file, unpacked where it is gzipped."""
    magic = stream.read(2)
    stream.seek(0)
    if magic != b"\x1f\x8b":
        return read_limited(stream, label)
    try:
        packed = size_of(stream)
        with gzip.open(stream) as unpacked:
            return Unpacked(unpacked, packed, MAX_BYTES, label).read()
    except (OSError, EOFError, zlib.error) as error:
        raise invalid(label, f"is a damaged gzip file: {error}") from error


def read_idx(data: bytes, label: str) -> NDArray[np.uint8]:
    """An idx array of bytes (MNIST's format)."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != 8:
        raise invalid(label, "is no idx file of bytes")
    axes = data[3]
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes))
    if len(data) != 4 + 4 * axes + math.prod(shape):
        raise invalid(label, f"says shape {shape} and has {len(data) - 4 - 4 * axes} bytes")
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape)


def idx_pair(first: NDArray[np.uint8], second: NDArray[np.uint8], label: str) -> Labelled:
    """Images and labels of two idx files, in either order."""
    images, labels = (first, second) if first.ndim == 3 else (second, first)
    if images.ndim != 3 or labels.ndim != 1:
        raise invalid(label, "needs one idx file of images and one of labels")
    if len(images) != len(labels):
        raise invalid(label, f"has {len(images)} images and {len(labels)} labels")
    return Labelled(images[:, None], labels.astype(np.int64))


def read_cifar(data: bytes, classes: int, label: str) -> Labelled:
    """Records of CIFAR's binary version: a label byte (CIFAR-100: two), then 3072 pixels."""
    before = 1 if classes == 10 else 2
    if not data or len(data) % (3072 + before):
        raise invalid(label, f"does not hold whole records of {3072 + before} bytes")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, 3072 + before)
    labels = records[:, before - 1].astype(np.int64)
    if labels.max() >= classes:
        raise invalid(label, f"has class {labels.max()}; CIFAR-{classes} has {classes} classes")
    return Labelled(records[:, before:].reshape(-1, 3, 32, 32), labels)


def read_cifar_archive(
    stream: BinaryIO, classes: int, label: str
) -> tuple[Labelled, Labelled, list[str]]:
    """Train, test and class names of the published `cifar-*-binary.tar.gz`."""
    parts: dict[str, list[tuple[str, Labelled]]] = {"train": [], "test": []}
    names: list[str] = []
    try:
        with (
            gzip.open(stream) as unpacked,
            # In a stream: a member that claims more than there is takes no memory.
            tarfile.open(
                fileobj=cast(Any, Unpacked(unpacked, size_of(stream), MAX_CIFAR_BYTES, label)),
                mode="r|",
            ) as archive,
        ):
            for number, member in enumerate(archive):
                name = PurePosixPath(member.name).name
                if number >= _MAX_MEMBERS:
                    raise JobError("too_large", f"{label} has more than {_MAX_MEMBERS} members.")
                if not member.isfile():
                    continue
                reader = archive.extractfile(member)
                if reader is None:
                    continue
                if name.endswith(".bin"):
                    part = "test" if name.startswith("test") else "train"
                    found = read_cifar(reader.read(), classes, f"{label}:{name}")
                    parts[part].append((name, found))
                elif name in ("batches.meta.txt", "fine_label_names.txt"):
                    names = reader.read().decode("ascii", "replace").split()
                elif name in ("data_batch_1", "train"):
                    raise invalid(
                        label,
                        "is the Python version, which holds pickles; upload the binary version",
                    )
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise invalid(label, f"is a damaged archive: {error}") from error
    if not parts["train"] or not parts["test"]:
        raise invalid(label, "lacks the .bin files of the train or the test part")
    train, test = (
        joined([found for _, found in sorted(parts[part], key=itemgetter(0))])
        for part in ("train", "test")
    )
    return train, test, names


def joined(parts: list[Labelled]) -> Labelled:
    """Several parts as one."""
    return Labelled(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def read_folders(
    stream: BinaryIO,
    label: str,
    check: Callable[[], None],
    told: list[str],
    size: tuple[int, int] | None = None,
) -> tuple[dict[str, Labelled], list[str]]:
    """The parts of a zip with `train/CLASS/*.png` and `test/CLASS/*.png` (or `val/`).

    Without part folders all classes are one part, `all`. Tiny-ImageNet's `val/images` with
    `val_annotations.txt` is understood; the pictures of its test folder, which have no labels, are
    left out, and so are hidden files and those that macOS adds. Classes are numbered in sorted
    order of their names, as numbers where all are.

    Args:
        size: height and width that pictures are resized to; None: all must have one size.
        told: what is worth a warning is added to it.

    Raises:
        JobError: for names that leave the folder, links, too many or too large files, images of
            different sizes, or classes that a part lacks.
    """
    try:
        with open_zip(stream, label, MAX_BYTES, MAX_DIRECTORY_BYTES) as archive:
            return _folders(archive, label, check, told, size)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
        raise invalid(label, f"is a damaged zip file: {error}") from error


def _folders(
    archive: zipfile.ZipFile,
    label: str,
    check: Callable[[], None],
    told: list[str],
    size: tuple[int, int] | None,
) -> tuple[dict[str, Labelled], list[str]]:
    members = [m for m in archive.infolist() if not m.is_dir() and not _hidden(m.filename)]
    if len(members) > MAX_FILES:
        raise JobError("too_large", f"{label} holds {len(members)} files; limit {MAX_FILES}.")
    for member in members:
        if member.file_size > MAX_MEMBER_BYTES:
            text = f"{label} holds {member.filename!r} of {member.file_size} bytes."
            raise JobError("too_large", text)
        path = PurePosixPath(member.filename)
        if path.is_absolute() or ".." in path.parts or (member.external_attr >> 28) == 0xA:
            raise invalid(label, f"holds {member.filename!r}: links and paths outside are refused")
    known = {m.filename: _annotated(archive, m) for m in members if _is_annotation(m.filename)}
    found: dict[str, list[tuple[str, zipfile.ZipInfo]]] = {}
    unlabelled = 0
    for member in sorted(members, key=lambda m: m.filename):
        if member.filename.lower().endswith(_PICTURES):
            part, name = _place(member.filename, known, label)
            if name is None:
                unlabelled += 1
            else:
                found.setdefault(part, []).append((name, member))
    if not found:
        raise invalid(label, "holds no .png, .jpg, .bmp or .webp files in class folders")
    if unlabelled:
        told.append(f"{label}: {unlabelled:,} pictures without a label were left out.")
    names = _in_order({name for files in found.values() for name, _ in files})
    parts = {}
    for part, files in found.items():
        absent = sorted(set(names) - {name for name, _ in files})
        if absent:
            raise invalid(label, f"has no {part} images of {', '.join(absent[:5])}")
        images = _pictures(archive, [m for _, m in files], label, check, size)
        number = {name: i for i, name in enumerate(names)}
        parts[part] = Labelled(images, np.array([number[n] for n, _ in files], dtype=np.int64))
    return parts, names


def _hidden(filename: str) -> bool:
    """Whether a file is none of the user's: hidden, or made by macOS beside every file."""
    parts = PurePosixPath(filename).parts
    return "__MACOSX" in parts or any(p.startswith(".") and p not in (".", "..") for p in parts)


def _in_order(names: set[str]) -> list[str]:
    """Names of classes in the order of their labels: as numbers where all are."""
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _is_annotation(filename: str) -> bool:
    return PurePosixPath(filename).name == "val_annotations.txt"


def _annotated(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> dict[str, str]:
    """Class by file name, from Tiny-ImageNet's list of its validation images."""
    lines = archive.read(member).decode("utf-8", "replace").splitlines()
    split = [line.split("\t") for line in lines if "\t" in line]
    return {fields[0]: fields[1] for fields in split}


def _place(filename: str, known: dict[str, dict[str, str]], label: str) -> tuple[str, str | None]:
    """Part and class of a file by its folders; None for a picture of Tiny-ImageNet's test part."""
    path = PurePosixPath(filename)
    folders = [f for f in path.parts[:-1] if f != "images"]
    part = next((_PARTS[f] for f in folders if f in _PARTS), "all")
    inside = folders[-1] if folders and folders[-1] not in _PARTS else None
    if inside is None:
        for listing in known.values():
            inside = listing.get(path.name)
    if inside is None and not (known and "test" in folders):
        raise invalid(label, f"holds {filename!r}, which lies in no class folder")
    return part, inside


def _pictures(
    archive: zipfile.ZipFile,
    members: list[zipfile.ZipInfo],
    label: str,
    check: Callable[[], None],
    size: tuple[int, int] | None,
) -> NDArray[np.uint8]:
    first = read_picture(archive.read(members[0]), f"{label}:{members[0].filename}", size)
    out = np.empty(_affordable(len(members), first, label), dtype=np.uint8)
    for row, member in enumerate(members):
        if row % 256 == 0:
            check()
        image = read_picture(archive.read(member), f"{label}:{member.filename}", size)
        if image.shape[:2] != first.shape[:2]:
            raise invalid(
                label,
                f"holds images of different sizes: {members[0].filename} is "
                f"{first.shape[1]}x{first.shape[0]}, {member.filename} is "
                f"{image.shape[1]}x{image.shape[0]}; say `resize` to make them one",
            )
        if image.shape[2] == 3 and out.shape[1] == 1:
            # Gray pictures among coloured ones are spread over the three channels.
            _affordable(len(members), image, label)
            out = np.repeat(out, 3, axis=1)
        out[row] = np.moveaxis(image, 2, 0)
    return out


def _affordable(count: int, picture: ByteArray, label: str) -> tuple[int, ...]:
    """The shape of so many pictures like one of [height, width, channels], within the limit."""
    shape = (count, picture.shape[2], *picture.shape[:2])
    if math.prod(shape) > MAX_BYTES:
        raise JobError("too_large", f"{label} unpacks to images of shape {shape}.")
    return shape
