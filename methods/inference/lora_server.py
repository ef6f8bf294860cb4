"""An adapter that a job made, answered by a vLLM server that loads adapters while it runs.

The operator opts in by declaring `lora_base` and `lora_folder` with the server, and starts vLLM
with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True. Each use has a name of its own, so
that nobody unloads what another one asks: the adapter's digest, and a number of the use. Its folder
lies as long as the server may have it, and is touched while it is in use: what a crash leaves is
told by its age, and unloaded by the sweeper.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from hashlib import file_digest
from pathlib import Path

from methods.errors import JobError
from methods.inference.completion import Completion, Prompt, Sampling, Usage
from methods.inference.model_registry import ModelDeclaration
from methods.inference.openai_http import Server
from methods.inference.openai_server import OpenAIServer

PREFIX = "datassay-"
#: A user touches its folder that often; one that was not touched for so long has no user.
_TOUCH_SECONDS, STALE_SECONDS = 10.0, 600.0
_UNLOAD, _NOT_FOUND = "/unload_lora_adapter", 404
#: Loads of one use: a server may be started again meanwhile.
_LOADS = 3


class LoraServer:
    """A `LanguageModel` that loads the adapter before it samples and unloads it afterwards.

    Args:
        server: the name of the declared server, and its declaration.
        adapter: the unpacked adapter.
    """

    def __init__(self, server: str, declared: ModelDeclaration, adapter: Path) -> None:
        assert declared.lora_folder is not None, "the operator opted in"
        self._server, self._declared, self._adapter = server, declared, adapter
        with (adapter / "adapter_model.safetensors").open("rb") as reader:
            digest = file_digest(reader, "sha256").hexdigest()
        self._name = f"{PREFIX}{digest[:16]}-{uuid.uuid4().hex[:12]}"
        self._shared = Path(declared.lora_folder) / self._name
        self._touched = 0.0

    def sample(
        self,
        prompts: Iterable[tuple[int, Prompt]],
        sampling: Sampling,
        usage: Usage,
        check: Callable[[], None],
        waiting: Callable[[str], None] = lambda why: None,
        refused: Callable[[int, str], None] | None = None,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See `LanguageModel`."""
        server = Server(self._server, self._declared)

        def alive() -> None:
            check()
            if time.monotonic() - self._touched > _TOUCH_SECONDS:
                self._touched = time.monotonic()
                os.utime(self._shared)

        source, asked = iter(prompts), dict[int, Prompt]()

        def open_ones() -> Iterator[tuple[int, Prompt]]:
            yield from list(asked.items())
            for number, prompt in source:
                asked[number] = prompt
                yield number, prompt

        def let_go(number: int, why: str) -> None:
            assert refused is not None, "see below"
            del asked[number]
            refused(number, why)

        turned_down = None if refused is None else let_go
        shutil.copytree(self._adapter, self._shared)
        served = self._declared.model_copy(update={"served_as": self._name})
        model = OpenAIServer(self._server, served)
        try:
            for left in reversed(range(_LOADS)):
                self._load(server, alive, waiting)
                try:
                    found = model.sample(open_ones(), sampling, usage, alive, waiting, turned_down)
                    for number, answers in found:
                        del asked[number]
                        yield number, answers
                    return
                except JobError as error:
                    # A server that was started again has forgotten the adapter.
                    if left == 0 or f"answers {_NOT_FOUND}" not in error.message:
                        raise
        finally:
            _unload(server, self._shared)

    def _load(
        self, server: Server, check: Callable[[], None], waiting: Callable[[str], None]
    ) -> None:
        body = {"lora_name": self._name, "lora_path": str(self._shared)}
        try:
            for _ in server.ask([(0, "/load_lora_adapter", body)], check, waiting):
                pass
        except JobError as error:
            # Its answer was lost, and it was asked again.
            if "already" not in error.message:
                raise


def _unload(server: Server, folder: Path) -> bool:
    """Unload an adapter and delete its folder; False where the server did not answer, whose folder
    stays for the sweeper."""
    # Asked once: what ends the job must not keep it.
    status = server.post_once(_UNLOAD, {"lora_name": folder.name})
    if status not in (200, _NOT_FOUND):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def sweep_adapters(name: str, declared: ModelDeclaration) -> list[str]:
    """Unload what a crash left loaded in a server; returns the names.

    Args:
        name: of the declared server. declared: its declaration; one that loads no adapters, or
            whose folder is not there, has nothing to sweep.
    """
    folder = Path(declared.lora_folder) if declared.lora_folder is not None else None
    if folder is None or not folder.is_dir():
        return []
    left = sorted(one for one in folder.iterdir() if one.name.startswith(PREFIX))
    if not left:
        return []
    # The clock of whoever keeps the folder, not ours.
    probe = folder / f".clock-{uuid.uuid4().hex}"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    server, swept = Server(name, declared), []
    for one in left:
        try:
            stale = now - one.stat().st_mtime > STALE_SECONDS
        except FileNotFoundError:
            # Its user was done with it just now.
            continue
        if stale:
            if not _unload(server, one):
                break
            swept.append(one.name)
    return swept
