"""What is asked of a language model, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass


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
        cut: it ends at `max_tokens` and not by itself.
    """

    text: str
    logprobs: list[float] | None
    tokens: int
    token_texts: list[str] | None = None
    top_logprobs: list[list[tuple[str, float]]] | None = None
    cut: bool = False


@dataclass
class Usage:
    """What the sampling of a job cost."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
