"""What is asked of a language model, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from methods.seeds import derived_seed

#: A text; for a chat also its turns, each with `role` and `content`.
Prompt: TypeAlias = str | list[dict[str, str]]


def as_turns(prompt: Prompt) -> list[dict[str, str]]:
    """The turns of a chat: a text is one of the user."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


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
        chat: the prompt is the user's turn of a chat, or all its turns, by the model's own
            template.
        seed_each: every prompt, and where weights are in this process every sample, has a seed of
            its own, derived from `seed` and the prompt: whatever is asked beside it changes
            nothing.
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
    seed_each: bool = False

    def seed_of(self, prompt: Prompt, sample: int = 0) -> int | None:
        """The seed of a prompt, below 2^31, as servers take it."""
        if self.seed is None or not self.seed_each:
            return self.seed
        return derived_seed(self.seed, prompt, sample, bits=31)


@dataclass(frozen=True)
class Completion:
    """One drawn answer.

    Attributes:
        logprobs: (tokens,) natural logarithms under the untempered model.
        tokens: how many.
        token_texts: (tokens,) what each one adds to the text; those that end it are not in `text`.
        top_logprobs: for every place the likeliest tokens, as text and logarithm.
        cut: it ends at `max_tokens` and not by itself.
        refused: the server says that the model refused; the text is what it said.
        filtered: the server's filter took the content away.
        called_tools: the model called tools in place of an answer; the text is the calls.
        thoughts: characters of thoughts that came before the text and are not part of it.
    """

    text: str
    logprobs: list[float] | None
    tokens: int
    token_texts: list[str] | None = None
    top_logprobs: list[list[tuple[str, float]]] | None = None
    cut: bool = False
    refused: bool = False
    filtered: bool = False
    called_tools: bool = False
    thoughts: int = 0


@dataclass
class Usage:
    """What the sampling of a job cost."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
