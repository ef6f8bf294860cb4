"""Which models jobs may name, and the loaded ones of this process."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from methods.errors import JobError
from methods.inference.made_models import ModelBase, pack, point_to_base, unpack

T = TypeVar("T")


class ModelDeclaration(BaseModel):
    """A model that jobs may name: weights that a worker loads, or a server that it asks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = Field(None, description="A folder or a hub id; loaded by the worker.")
    revision: str | None = Field(None, description="Commit or branch of a hub id.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    base_url: str | None = Field(
        None, pattern=r"^https?://", description="An OpenAI-compatible server, with its /v1."
    )
    served_as: str | None = Field(None, description="Its name there; default: the name here.")
    api_key_env: str | None = Field(None, description="The environment variable with its key.")
    max_in_flight: int = Field(32, ge=1, le=1024, description="Requests at a time to the server.")
    lora_base: str | None = Field(
        None,
        description="The name of the declared weights that a vLLM server has which may load "
        "adapters while it runs.",
    )
    lora_folder: str | None = Field(
        None, description="A folder that workers and that server both see, for the adapters."
    )
    # Not what the model is, so no part of what names its results.
    state_file: str | None = Field(
        None, exclude=True, description="Where `datassay-server up` says how its own server is."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.base_url is None):
            raise ValueError("give exactly one of path and base_url")
        if (self.lora_base is None) != (self.lora_folder is None):
            raise ValueError("lora_base and lora_folder belong together")
        if self.lora_base is not None and self.base_url is None:
            raise ValueError("lora_base belongs to a server")
        return self

    @property
    def api_key(self) -> str | None:
        """The key of the server, read when it is needed."""
        return os.environ.get(self.api_key_env) if self.api_key_env else None


def declarations(raw: Mapping[str, object]) -> dict[str, ModelDeclaration]:
    """Declarations from settings. Raises ValueError that names the model."""
    return _DECLARATIONS.validate_python(raw)


_DECLARATIONS = TypeAdapter(dict[str, ModelDeclaration])


class Models:
    """The models of a process.

    Args:
        declared: by name.
        any_path: a name that is not declared is a path or hub id. For notebooks; a service only
            loads what its operator declared.
        keep: how many loaded models stay in memory; the one used longest ago goes first.
    """

    def __init__(
        self,
        declared: Mapping[str, ModelDeclaration] | None = None,
        any_path: bool = False,
        keep: int = 2,
    ) -> None:
        self.declared = dict(declared or {})
        self._any_path, self._keep = any_path, keep
        self._loaded: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._learned: dict[str, Any] = {}
        self._lock = threading.Lock()

    def is_made(self, name: str) -> bool:
        """Whether a name stands for a model that a job made: an artifact (`art_...`), or in a
        notebook its file (`....tar`)."""
        return name not in self.declared and (name.startswith("art_") or name.endswith(".tar"))

    def find(self, name: str) -> ModelDeclaration:
        """The declaration of a name. Raises `JobError('model_unknown')`."""
        if name in self.declared:
            return self.declared[name]
        if self._any_path:
            return ModelDeclaration(path=name)
        known = ", ".join(sorted(self.declared)) or "none"
        raise JobError("model_unknown", f"There is no model {name[:128]!r} here; known: {known}.")

    def weights(self, name: str) -> ModelDeclaration:
        """The declaration of a model that this process can load.

        Raises:
            JobError: `model_unknown`, or `model_rejected_request` when it is a server.
        """
        found = self.find(name)
        if found.path is None:
            raise JobError(
                "model_rejected_request", f"{name!r} is a server; this needs a model's weights."
            )
        return found

    def learned(self, name: str, first: Callable[[], T]) -> T:
        """What is known by now of the model of a name; `first` makes it where nothing is."""
        with self._lock:
            found: T = self._learned.setdefault(name, first())
            return found

    def load(self, name: str, loader: Callable[[ModelDeclaration], T]) -> T:
        """What `loader` makes of the weights, once per process.

        Raises:
            JobError: see `weights`; `model_unavailable` when they cannot be loaded.
        """
        source = self.weights(name)
        key = (f"{loader.__module__}.{loader.__qualname__}", source.model_dump_json())
        with self._lock:
            if key not in self._loaded:
                while len(self._loaded) >= self._keep:
                    self._loaded.popitem(last=False)
                self._loaded[key] = _load(name, source, loader)
            self._loaded.move_to_end(key)
            return self._loaded[key]


class JobModels(Models):
    """The models of one job: those of the process, and those that other jobs made.

    Args:
        shared: the models of the process.
        open_made: opens the artifact with a model that a job made.
        folder: such models are unpacked below it.
    """

    def __init__(self, shared: Models, open_made: Callable[[str], BinaryIO], folder: Path) -> None:
        super().__init__(shared.declared)
        self._shared, self._open, self._folder = shared, open_made, folder
        self._made: dict[str, ModelDeclaration] = {}
        self._bases: dict[str, str] = {}

    def find(self, name: str) -> ModelDeclaration:
        """The declaration of a name; a model that a job made is unpacked at first sight.

        Raises:
            JobError: `model_unknown`; `input_invalid` for an artifact that is not a model;
                `model_rejected_request` for an adapter whose base is another model here.
        """
        if not self.is_made(name):
            return self._shared.find(name)
        if name not in self._made:
            self._made[name] = self._unpacked(name)
        return self._made[name]

    def load(self, name: str, loader: Callable[[ModelDeclaration], T]) -> T:
        """See `Models.load`; what a job made is loaded for this job alone."""
        return super().load(name, loader) if self.is_made(name) else self._shared.load(name, loader)

    def lora_server(self, name: str) -> tuple[str, ModelDeclaration] | None:
        """A declared server that may load this adapter while it runs, with its name."""
        base = self.base_of(name)
        server = None if base is None else self.server_of(base)
        return None if server is None else (server, self._shared.declared[server])

    def base_of(self, name: str) -> str | None:
        """The declared model that an adapter changes which a job made; None of any other."""
        self.find(name)
        return self._bases.get(name)

    def server_of(self, weights: str) -> str | None:
        """A declared server that has these declared weights and may load adapters of them."""
        servers = self._shared.declared.items()
        return next((name for name, one in servers if one.lora_base == weights), None)

    def packed(self, folder: Path, target: Path, base: str | None) -> Path:
        """Write the model of a folder to `target`; see `RunContext.save_model`."""
        named = None
        if base is not None:
            named = ModelBase(name=base, fingerprint=fingerprint(self._shared.weights(base)))
        pack(folder, target, named)
        return target

    def _unpacked(self, name: str) -> ModelDeclaration:
        folder = self._folder / sha256(name.encode()).hexdigest()[:32]
        with self._open(name) as reader:
            manifest = unpack(reader, folder, name)
        if manifest.base is None:
            return ModelDeclaration(path=str(folder))
        base = self._shared.weights(manifest.base.name)
        if fingerprint(base) != manifest.base.fingerprint:
            raise JobError(
                "model_rejected_request",
                f"{name} is an adapter or projector of {manifest.base.name!r}, which has other "
                "weights by now.",
            )
        if manifest.kind == "adapter":
            self._bases[name] = manifest.base.name
        assert base.path is not None, "these are weights"
        point_to_base(folder, manifest.kind, base.path)
        return ModelDeclaration(path=str(folder), dtype=base.dtype, revision=base.revision)


def fingerprint(declared: ModelDeclaration) -> str:
    """Which weights a declaration names, without saying where they lie."""
    return sha256(f"{declared.path} {declared.revision}".encode()).hexdigest()


def _load(name: str, source: ModelDeclaration, loader: Callable[[ModelDeclaration], T]) -> T:
    try:
        return loader(source)
    except (OSError, ValueError, ImportError) as error:
        text = f"The model {name!r} cannot be loaded: {error}"
        raise JobError("model_unavailable", text[:2000], retryable=False) from error
