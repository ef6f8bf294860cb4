"""Sampling answers from a language model, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from methods.inference.completion import Completion, Prompt, Sampling, Usage
from methods.inference.model_registry import JobModels, Models


class LanguageModel(Protocol):
    """Draws answers; the same over HTTP and in this process."""

    def sample(
        self,
        prompts: Iterable[tuple[int, Prompt]],
        sampling: Sampling,
        usage: Usage,
        check: Callable[[], None],
        waiting: Callable[[str], None] = lambda why: None,
        refused: Callable[[int, str], None] | None = None,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Answers of every prompt as they come, under the number the prompt was given.

        Args:
            prompts: taken as places become free, so that a stream of any length fits the memory.
            usage: counted up as answers arrive.
            check: called now and then; what it raises ends the sampling and the open requests.
            waiting: told once whenever nothing can be drawn until the model has been loaded.
            refused: told the number of a prompt that the model cannot answer, and why; the others
                are answered. Without it such a prompt ends the sampling.

        Raises:
            JobError: `model_unavailable` after retries, `model_rejected_request`.
        """


def language_model(models: Models, name: str) -> LanguageModel:
    """The model of a name: a server to ask, or weights to load; of an adapter that a job made, a
    server that may load it, else its base and it.

    Raises:
        JobError: `model_unknown`; `model_unavailable` when weights cannot be loaded.
    """
    source = models.find(name)
    if isinstance(models, JobModels) and (server := models.lora_server(name)) is not None:
        from methods.inference.lora_server import LoraServer

        assert source.path is not None, "an adapter is a folder"
        return LoraServer(*server, Path(source.path))
    if source.base_url is not None:
        from methods.inference.openai_server import OpenAIServer
        from methods.inference.server_quirks import Quirks

        return OpenAIServer(name, source, models.learned(name, Quirks))
    from methods.inference.generate import load_generator

    return models.load(name, load_generator)
