"""An adapter that a job made, answered by a vLLM server that loads adapters while it runs.

The operator opts in by declaring `lora_base` and `lora_folder` with the server, and starts vLLM
with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True. Each use has a name of its own, so
that nobody unloads what another one asks.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from methods.inference.completion import Completion, Prompt, Sampling, Usage
from methods.inference.model_registry import ModelDeclaration
from methods.inference.openai_http import Server
from methods.inference.openai_server import OpenAIServer


class LoraServer:
    """A `LanguageModel` that loads the adapter before it samples and unloads it afterwards.

    Args:
        server: the name of the declared server, and its declaration.
        adapter: the unpacked adapter.
    """

    def __init__(self, server: str, declared: ModelDeclaration, adapter: Path) -> None:
        assert declared.lora_folder is not None, "the operator opted in"
        self._server, self._declared, self._adapter = server, declared, adapter
        self._name = f"datassay-{uuid.uuid4().hex}"
        self._shared = Path(declared.lora_folder) / self._name

    def sample(
        self,
        prompts: Iterable[tuple[int, Prompt]],
        sampling: Sampling,
        usage: Usage,
        check: Callable[[], None],
        waiting: Callable[[str], None] = lambda why: None,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """See `LanguageModel`."""
        server = Server(self._server, self._declared)
        try:
            shutil.copytree(self._adapter, self._shared)
            body = {"lora_name": self._name, "lora_path": str(self._shared)}
            for _ in server.ask([(0, "/load_lora_adapter", body)], check, waiting):
                pass
            try:
                served = self._declared.model_copy(update={"served_as": self._name})
                model = OpenAIServer(self._server, served)
                yield from model.sample(prompts, sampling, usage, check, waiting)
            finally:
                # Asked once: what ends the job must not keep it.
                server.post_once("/unload_lora_adapter", {"lora_name": self._name})
        finally:
            shutil.rmtree(self._shared, ignore_errors=True)
