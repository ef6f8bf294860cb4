"""Named arrays of an uploaded file: npz, npy, safetensors, and .pt without its pickles.

Sizes are read from headers and compared with a limit before anything is unpacked. Only `.pt` files
touch a pickle at all, through torch's restricted reader, which builds tensors and containers and
nothing else.
"""

from __future__ import annotations

import codecs
import importlib
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from methods.arrays.headers import SafetensorsHeader, read_npy_header, widened
from methods.arrays.unpacking import DAMAGED, open_zip, read_exactly
from methods.errors import JobError
from methods.typing import AnyArray

MAX_BYTES = 4 << 30
#: How `torch.save` began its files before version 1.6.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"
#: Some hundred thousand names.
MAX_DIRECTORY_BYTES = 64 << 20


@dataclass
class ArrayFile:
    """Arrays by name, each read when it is asked for.

    Attributes:
        label: how messages call the file.
        names: in file order.
    """

    label: str
    names: list[str]
    _load: Callable[[str], AnyArray]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> AnyArray:
        """One array. Raises `JobError('input_invalid')` when it is damaged."""
        try:
            return self._load(name)
        except DAMAGED as error:
            raise invalid(self.label, f"array {name!r} cannot be read: {error}") from error

    def pick(self, wanted: str | None, usual: Iterable[str], what: str) -> str:
        """The name to read: the wanted one, else the first usual one, else the only one."""
        if wanted is not None:
            if wanted not in self.names:
                raise invalid(self.label, f"has no array {wanted!r}, only {self.shown}")
            return wanted
        for name in usual:
            if name in self.names:
                return name
        if len(self.names) == 1:
            return self.names[0]
        raise invalid(self.label, f"holds {self.shown}; say which array has the {what}")

    @property
    def shown(self) -> str:
        """The names for a message."""
        return ", ".join(self.names[:12]) + (", …" if len(self.names) > 12 else "") or "nothing"


class _NoArraysError(JobError):
    """A zip file that holds something else."""


def invalid(label: str, problem: str) -> JobError:
    """The error of a wrong file."""
    return JobError("input_invalid", f"{label} {problem}.", details={"file": label})


def open_arrays(stream: BinaryIO, label: str, *, texts: bool = False) -> ArrayFile:
    """Open a file by its first bytes.

    Args:
        stream: seekable, at its start; it has to stay open while arrays are read.
        texts: whether strings of an npz file are read too.

    Raises:
        JobError: `input_invalid` for an unknown or damaged file or one with Python objects,
            `too_large` when its headers promise more than `MAX_BYTES`.
    """
    magic = stream.read(9)
    stream.seek(0)
    try:
        if magic.startswith(b"\x93NUMPY"):
            return ArrayFile(label, ["array"], lambda _: read_npy(stream, label, MAX_BYTES))
        if magic.startswith(b"PK"):
            return _zip(stream, label, texts)
        if magic[8:9] == b"{":
            return safetensors(stream, label, MAX_BYTES)
    except DAMAGED as error:
        raise invalid(label, f"is not readable: {error}") from error
    if magic == _LEGACY:
        return _pt(stream, label)
    if magic.startswith(b"\x80"):
        raise invalid(label, "is a bare pickle, which is never loaded; save npz or safetensors")
    raise invalid(label, "is no npz, npy, safetensors or .pt file")


def arrays_if_any(stream: BinaryIO, label: str) -> ArrayFile | None:
    """`open_arrays`, but None for a zip file without arrays, the stream being at its start again.

    Raises:
        JobError: as `open_arrays`.
    """
    try:
        return open_arrays(stream, label)
    except _NoArraysError:
        stream.seek(0)
        return None


def read_npy(stream: Any, label: str, max_bytes: int, *, texts: bool = False) -> AnyArray:
    """An npy file, allocated as its bytes come.

    Args:
        texts: whether strings are read beside numbers. Objects never are.

    Raises:
        JobError: `input_invalid` for other values, `too_large`.
        ValueError: it is damaged.
    """
    shape, fortran, dtype = read_npy_header(stream)
    if dtype.hasobject:
        raise invalid(label, "holds pickled objects, which are never loaded; only numbers are read")
    if dtype.kind not in ("fiubUS" if texts else "fiub"):
        raise invalid(label, f"holds values of type {dtype}, only numbers are read")
    size = math.prod(shape) * dtype.itemsize
    _limit(size, label, max_bytes)
    flat: AnyArray = np.frombuffer(read_exactly(stream, size), dtype=dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _limit(size: int, label: str, max_bytes: int) -> None:
    if size > max_bytes:
        raise JobError(
            "too_large", f"{label} says that it has {size} bytes: it unpacks to over {max_bytes}."
        )


def _zip(stream: BinaryIO, label: str, texts: bool) -> ArrayFile:
    # A zip of picture folders is looked at here first.
    archive = open_zip(stream, label, MAX_BYTES, MAX_DIRECTORY_BYTES)
    if any(member.filename.endswith("data.pkl") for member in archive.infolist()):
        stream.seek(0)
        return _pt(stream, label)
    arrays = npz(archive, label, MAX_BYTES, texts=texts)
    if not arrays.names:
        problem = f"{label} is a zip file without arrays in it."
        raise _NoArraysError("input_invalid", problem, details={"file": label})
    return arrays


def npz(archive: zipfile.ZipFile, label: str, max_bytes: int, *, texts: bool = False) -> ArrayFile:
    """The arrays of an npz archive; see `read_npy` for `texts`."""

    def load(name: str) -> AnyArray:
        with archive.open(f"{name}.npy") as member:
            return read_npy(member, f"{label}[{name}]", max_bytes, texts=texts)

    names = [name[:-4] for name in archive.namelist() if name.endswith(".npy")]
    return ArrayFile(label, names, load)


def safetensors(stream: BinaryIO, label: str, max_bytes: int) -> ArrayFile:
    """The tensors of a safetensors file; bfloat16 comes as float32.

    Raises:
        ValueError: it is no safetensors file.
    """
    header = SafetensorsHeader(stream)

    def load(name: str) -> AnyArray:
        tensor = header.tensor(name)
        _limit(tensor.size, label, max_bytes)
        stream.seek(tensor.start)
        data = read_exactly(stream, tensor.size)
        array: AnyArray = np.frombuffer(data, dtype=tensor.dtype).reshape(tensor.shape)
        return widened(array) if tensor.bfloat16 else array

    return ArrayFile(label, header.names, load)


def _pt(stream: BinaryIO, label: str) -> ArrayFile:
    import torch

    try:
        # map_location and weights_only: tensors on the CPU, and no code of the file's choosing.
        with torch.serialization.safe_globals(_numbers()):
            content = torch.load(stream, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        named = re.search(r"Unsupported (?:global|class)[^\w]*(?:GLOBAL )?([\w.]+)", str(error))
        reason = f"it holds a {named[1]}" if named else "it cannot be read as tensors"
        raise invalid(
            label,
            f"is a .pt file with more than tensors and numbers in it ({reason}); keep the tensors: "
            "torch.save({'images': images, 'labels': labels}, path)",
        ) from error
    found: dict[str, AnyArray] = {}
    _flatten(content, "", found)
    return ArrayFile(label, list(found), found.__getitem__)


def _numbers() -> list[Any]:
    """What numbers and arrays of numpy are made of, and how a pickle of protocol 2 writes their
    bytes; none of it runs code of a file."""
    parts = importlib.import_module("numpy._core.multiarray")
    scalar, rebuilt = parts.scalar, parts._reconstruct
    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    # Files of numpy 1 name the same things otherwise.
    old = [(one, f"numpy.core.multiarray.{one.__name__}") for one in (scalar, rebuilt)]
    return [scalar, rebuilt, *old, np.ndarray, np.dtype, *dict.fromkeys(kinds), codecs.encode]


def _flatten(value: Any, name: str, found: dict[str, AnyArray]) -> None:
    """Tensors of nested containers under dotted names, e.g. `data.0.1`."""
    import torch

    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        found[name or "array"] = value
        return
    if isinstance(value, torch.Tensor):
        tensor = value.detach()
        tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        found[name or "tensor"] = tensor.numpy()
        return
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, item in items:
        _flatten(item, f"{name}.{key}" if name else str(key), found)
