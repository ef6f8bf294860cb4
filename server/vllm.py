"""A vLLM server of this machine: from an environment of its own, which pins other versions."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from server.embedded import EmbeddedError
from server.processes import spawn

#: Where `make vllm` puts the environment, below the working directory.
ENVIRONMENT = Path(".venv-vllm")

# Half precision is many times slower than single on most CPUs, and compiling pays off never.
_ON_CPU = ["--dtype", "float32", "--enforce-eager"]
_ENV_ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1"}
#: Starts in a row that end before it serves; then nobody waits for it any more.
_FAILED_STARTS = 2


@dataclass
class VLLM:
    """`vllm serve MODEL`.

    Args:
        model: a folder or a hub id.
        python: of the environment that has vLLM.
        arguments: further ones for the server, in shell syntax.
        state_file: where it is said whether jobs should wait for it.
    """

    model: str
    python: Path
    log: Path
    arguments: str = ""
    port: int = 0
    state_file: Path | None = None
    served: bool = False
    _said: str = ""

    @classmethod
    def prepare(
        cls,
        model: str,
        log: Path,
        python: Path | None,
        arguments: str,
        state_file: Path | None = None,
    ) -> VLLM:
        """Find the environment and a free port.

        Raises:
            EmbeddedError: there is no such environment.
        """
        python = python or ENVIRONMENT / "bin" / "python"
        if not python.exists():
            raise EmbeddedError(f"{python} is not there: build it with `make vllm`")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        # Not resolved: the link is what makes it that environment's Python.
        return cls(model, python.absolute(), log, arguments, port, state_file)

    @property
    def name(self) -> str:
        """How jobs call the model: the last part of its path."""
        return self.model.rstrip("/").rpartition("/")[2]

    @property
    def url(self) -> str:
        """Of the server, without a path."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, before: str | None) -> str:
        """`DATASSAY_MODELS` with this model added; with `--enable-lora` also its weights, which
        adapters are of."""
        declared = json.loads(before) if before else {}
        own = {"base_url": f"{self.url}/v1"}
        if self.state_file is not None:
            own["state_file"] = str(self.state_file)
        ours = {self.name: own}
        if self.takes_adapters:
            weights = f"{self.name}-weights"
            own |= {"lora_base": weights, "lora_folder": str(self.log.parent.parent / "adapters")}
            path = Path(self.model)
            ours[weights] = {"path": str(path.absolute()) if path.exists() else self.model}
        return json.dumps(ours | declared)

    @property
    def takes_adapters(self) -> bool:
        """Whether it is to load adapters that jobs made, while it runs."""
        return "--enable-lora" in shlex.split(self.arguments)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it; its own children end with it."""
        on_cpu = not Path("/dev/nvidia0").exists()
        # The module, not the script `vllm`: that asks for a distribution of this very name, which
        # the builds for other hardware do not have.
        return spawn(
            [
                *(self.python, "-m", "vllm.entrypoints.openai.api_server"),
                *("--model", self.model, "--served-model-name", self.name),
                *("--host", "127.0.0.1", "--port", str(self.port), "--max-model-len", "auto"),
                *(_ON_CPU if on_cpu else []),
                *shlex.split(self.arguments),
            ],
            log=self.log,
            death_signal=signal.SIGTERM,
            env={
                **(_ENV_ON_CPU if on_cpu else {}),
                # Safe here: its port is open to this machine only.
                **({"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"} if self.takes_adapters else {}),
                "VLLM_NO_USAGE_STATS": "1",
                **os.environ,
            },
        )

    def watch(self, alive: bool, failures: int) -> bool:
        """Note how it is, for the jobs that wait for it.

        Args:
            alive: the process runs. failures: starts in a row that have ended before it served.

        Returns:
            Whether it has begun to serve since the last call.
        """
        before, self.served = self.served, alive and (self.served or self.healthy())
        waits = failures < _FAILED_STARTS
        self._say("serving" if self.served else "loading" if waits else "failed")
        return self.served and not before

    def _say(self, state: str) -> None:
        if self.state_file is not None and state != self._said:
            part = self.state_file.with_suffix(".part")
            part.write_text(json.dumps({"state": state}))
            part.replace(self.state_file)
            self._said = state

    def healthy(self) -> bool:
        """Whether it answers: loading takes from half a minute to several."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
