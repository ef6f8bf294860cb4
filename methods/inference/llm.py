"""Sampling answers from a language model, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from methods.inference.model_registry import Models


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        n: answers per prompt.
        temperature: 0 is greedy. top_p: nucleus.
        max_tokens: an answer is cut there. stop: strings that end an answer and are not part of it.
        seed: of the server's or our generator; None leaves it to chance.
        logprobs: whether the log-probability of every drawn token is wanted.
        top_logprobs: so many of the likeliest tokens of every place are wanted too; servers limit
            it, vLLM to 20 unless told otherwise.
        chat: the prompt is the user's turn of a chat, by the model's own template.
    """

    n: int = 10
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = True
    top_logprobs: int = 0
    chat: bool = False


@dataclass(frozen=True)
class Completion:
    """One drawn answer.

    Attributes:
        logprobs: (tokens,) natural logarithms under the untempered model.
        tokens: how many.
        token_texts: (tokens,) what each one adds to the text; those that end it are not in `text`.
        top_logprobs: for every place the likeliest tokens, as text and logarithm.
    """

    text: str
    logprobs: list[float] | None
    tokens: int
    token_texts: list[str] | None = None
    top_logprobs: list[list[tuple[str, float]]] | None = None


@dataclass
class Usage:
    """What the sampling of a job cost."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class LanguageModel(Protocol):
    """Draws answers; the same over HTTP and in this process."""

    def sample(
        self,
        prompts: Iterable[tuple[int, str]],
        sampling: Sampling,
        usage: Usage,
        check: Callable[[], None],
        waiting: Callable[[str], None] = lambda why: None,
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Answers of every prompt as they come, under the number the prompt was given.

        Args:
            prompts: taken as places become free, so that a stream of any length fits the memory.
            usage: counted up as answers arrive.
            check: called now and then; what it raises ends the sampling and the open requests.
            waiting: told once whenever nothing can be drawn until the model has been loaded.

        Raises:
            JobError: `model_unavailable` after retries, `model_rejected_request`.
        """


def language_model(models: Models, name: str) -> LanguageModel:
    """The declared model of a name: a server to ask, or weights to load.

    Raises:
        JobError: `model_unknown`; `model_unavailable` when weights cannot be loaded.
    """
    source = models.find(name)
    if source.base_url is not None:
        from methods.inference.openai_server import OpenAIServer

        return OpenAIServer(name, source)
    from methods.inference.generate import load_generator

    return models.load(name, load_generator)
