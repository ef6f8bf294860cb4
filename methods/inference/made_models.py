"""Models made by jobs: a folder of weights, configurations and tokenizer files as one artifact.

The artifact is an uncompressed tar. Its first member, `manifest.json`, names every other with size
and SHA-256. Weights are safetensors; nothing in it is code or a pickle, and nothing else is taken
in, so that a model of one job may be loaded by another.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from methods.errors import JobError

MEDIA_TYPE = "application/vnd.datassay.model+tar"
Kind = Literal["full", "adapter", "projector"]
_MANIFEST = "manifest.json"
_SUFFIXES = {".safetensors", ".json", ".txt", ".model", ".jinja"}
_MAX_MANIFEST = 1 << 20
_CHUNK = 1 << 20
#: What a folder may hold beside that is simply left out.
_LEFT_OUT = {"README.md", "training_args.bin", ".gitattributes"}


#: Files that say which model something changes.
_PARTS: dict[Kind, str] = {"adapter": "adapter_config.json", "projector": "projector_config.json"}


def kind_of(names: Collection[str]) -> Kind:
    """What a folder with files of these names holds."""
    return next((kind for kind, file in _PARTS.items() if file in names), "full")


class ModelFile(BaseModel):
    """A file of a model."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=0, description="Length in bytes.")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 in hexadecimal.")


class ModelBase(BaseModel):
    """The model that an adapter was trained on."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="The name that the operator declared it by.")
    fingerprint: str = Field(description="SHA-256 over its declaration: other weights differ.")


class Manifest(BaseModel):
    """What an artifact with a model holds."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["datassay-model/1"] = "datassay-model/1"
    kind: Kind
    base: ModelBase | None = Field(
        None, description="The model that an adapter or projector changes; null for a full model."
    )
    files: dict[str, ModelFile]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.kind != kind_of(self.files):
            raise ValueError(f"it is said to be a model of the kind {self.kind}, and is none")
        if (self.kind == "full") != (self.base is None):
            raise ValueError("an adapter or projector has a base, a full model has none")
        if not any(name.endswith(".safetensors") for name in self.files):
            raise ValueError("there are no safetensors in it")
        return self


def pack(folder: Path, target: Path, base: ModelBase | None = None) -> Manifest:
    """Write the model of a folder, as `save_pretrained` leaves it, to a tar.

    Args:
        base: the model that an adapter was trained on; for adapters only.

    Raises:
        ValueError: the folder has no weights, or a file that no model may have.
    """
    files: dict[str, ModelFile] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.name in _LEFT_OUT:
            continue
        if fault := _name_fault(name):
            raise ValueError(f"{name}: {fault}")
        with path.open("rb") as reader:
            digest = hashlib.file_digest(reader, "sha256").hexdigest()
        files[name] = ModelFile(size=path.stat().st_size, sha256=digest)
    manifest = Manifest(kind=kind_of(files), base=base, files=files)
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        text = manifest.model_dump_json(indent=1).encode()
        archive.addfile(_member(_MANIFEST, len(text)), io.BytesIO(text))
        for name, file in files.items():
            with (folder / name).open("rb") as reader:
                archive.addfile(_member(name, file.size), reader)
    return manifest


def unpack(source: BinaryIO, target: Path, name: str) -> Manifest:
    """Write the files of a model below `target`, each compared with the manifest.

    Raises:
        JobError: `input_invalid` for anything but an intact model; the message names `name`.
    """
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:
            members = iter(archive)
            manifest = _read_manifest(archive, next(members, None))
            left = dict(manifest.files)
            for member in members:
                _unpack_file(archive, member, left, target)
            if left:
                raise ValueError(f"{min(left)} is missing")
    except (tarfile.TarError, ValueError, ValidationError, OSError, EOFError) as error:
        text = f"{name} is not a model that a job made: {error}"
        raise JobError("input_invalid", text[:2000]) from error
    return manifest


def _read_manifest(archive: tarfile.TarFile, member: tarfile.TarInfo | None) -> Manifest:
    if member is None or member.name != _MANIFEST or not member.isreg():
        raise ValueError(f"its first file is not {_MANIFEST}")
    if member.size > _MAX_MANIFEST:
        raise ValueError(f"{_MANIFEST} is too large")
    reader = archive.extractfile(member)
    assert reader is not None, "it is a regular file"
    manifest = Manifest.model_validate_json(reader.read())
    for name in manifest.files:
        if fault := _name_fault(name):
            raise ValueError(f"{name[:200]}: {fault}")
    return manifest


def _unpack_file(
    archive: tarfile.TarFile, member: tarfile.TarInfo, left: dict[str, ModelFile], target: Path
) -> None:
    wanted = left.pop(member.name, None)
    regular = member.isreg() and not member.issparse()
    if wanted is None or not regular or member.size != wanted.size:
        raise ValueError(f"{member.name[:200]} is not as the manifest says")
    path = target / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    reader = archive.extractfile(member)
    assert reader is not None, "it is a regular file"
    digest = hashlib.sha256()
    with path.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
    if digest.hexdigest() != wanted.sha256:
        raise ValueError(f"{member.name} is damaged")


def _name_fault(name: str) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or name == _MANIFEST:
        return "such a path is not allowed"
    if path.suffix not in _SUFFIXES:
        return f"a model has files ending in {', '.join(sorted(_SUFFIXES))} only"
    return None


def _member(name: str, size: int) -> tarfile.TarInfo:
    """The same bytes for the same model: no times, no owners."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


def point_to_base(folder: Path, kind: Kind, path: str) -> None:
    """Make an unpacked adapter or projector load its base from where this machine has it."""
    name = _PARTS[kind]
    file = folder / name
    try:
        config = dict(json.loads(file.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise JobError("input_invalid", f"{name} is not a JSON object.") from error
    config["base_model_name_or_path"] = path
    file.write_text(json.dumps(config), "utf-8")
