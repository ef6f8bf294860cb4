"""A language model in this process, by transformers: for machines without a vLLM server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from transformers import (
    LogitsProcessorList,
    StoppingCriteriaList,
    StopStringCriteria,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from methods.errors import JobError
from methods.inference.completion import Completion, Prompt, Sampling, Usage, as_turns
from methods.inference.decoding import end_ids, greedy
from methods.inference.kv_cache import shared_prefix
from methods.inference.loading import load_language_model
from methods.inference.logits_processors import Checked, Draw, DrawnLogprobs, Top
from methods.inference.model_registry import ModelDeclaration

_SEQUENCES = 64
#: Prompts that are sorted by length together: less padding.
_WINDOW = 512


def load_generator(source: ModelDeclaration) -> Generator:
    """Load weights (safetensors only) and tokenizer; on a GPU when there is one."""
    return Generator(*load_language_model(source))


class Generator:
    """Draws answers in batches of padded prompts, each computed once; see `LanguageModel`."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        limits = (getattr(model.config, "max_position_embeddings", None), 1 << 20)
        self._positions = min(limit for limit in limits if limit)

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
        source = iter(prompts)
        if refused is not None:
            source = self._fitting(source, sampling, refused)
        draws = sampling.n if sampling.temperature > 0 else 1
        size = max(1, _SEQUENCES // draws)
        while window := list(islice(source, _WINDOW)):
            window.sort(key=lambda entry: _length(entry[1]))
            for start in range(0, len(window), size):
                check()
                part = window[start : start + size]
                for turns in (False, True):
                    # Turns go through the template, texts only where a chat is wanted.
                    same = [one for one in part if isinstance(one[1], str) is not turns]
                    if same:
                        asked = replace(sampling, chat=sampling.chat or turns)
                        found = self._batch([text for _, text in same], asked, draws, usage, check)
                        for (number, _), answers in zip(same, found, strict=True):
                            yield number, answers

    def _fitting(
        self,
        prompts: Iterable[tuple[int, Prompt]],
        sampling: Sampling,
        refused: Callable[[int, str], None],
    ) -> Iterator[tuple[int, Prompt]]:
        """The prompts that the model has positions for."""
        for number, prompt in prompts:
            if _length(prompt) + sampling.max_tokens > self._positions:
                turns = not isinstance(prompt, str)
                try:
                    self._encode([prompt], replace(sampling, chat=sampling.chat or turns))
                except JobError as error:
                    refused(number, error.message)
                    continue
            yield number, prompt

    def _batch(
        self,
        prompts: list[Prompt],
        sampling: Sampling,
        draws: int,
        usage: Usage,
        check: Callable[[], None],
    ) -> list[list[Completion]]:
        encoded = self._encode(prompts, sampling)
        length = encoded["input_ids"].shape[1]
        logprobs = DrawnLogprobs(sampling.top_logprobs)
        own_seeds = None
        if sampling.seed is not None and sampling.seed_each:
            own_seeds = [sampling.seed_of(p, k) or 0 for p in prompts for k in range(draws)]
        with torch.inference_mode(), torch.random.fork_rng(enabled=sampling.seed is not None):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            drawn = self._model.generate(
                **{name: rows.repeat_interleave(draws, dim=0) for name, rows in encoded.items()},
                # Where tokens are drawn, our processors leave one to take.
                **greedy(self._model),
                past_key_values=shared_prefix(self._model, encoded, draws),
                max_new_tokens=sampling.max_tokens,
                logits_processor=LogitsProcessorList([logprobs, *_drawing(sampling, own_seeds)]),
                stopping_criteria=StoppingCriteriaList([Checked(check), *self._stops(sampling)]),
                pad_token_id=self._tokenizer.pad_token_id,
            )[:, length:]
        values = logprobs.finish(drawn)
        answers = [
            self._completion(tokens, values[row], logprobs.top(row), sampling)
            for row, tokens in enumerate(drawn)
        ]
        usage.requests += len(prompts)
        usage.prompt_tokens += int(encoded["attention_mask"].sum())
        usage.completion_tokens += sum(answer.tokens for answer in answers)
        return [
            answers[k * draws : (k + 1) * draws] * (sampling.n // draws)
            for k in range(len(prompts))
        ]

    def _encode(self, prompts: list[Prompt], sampling: Sampling) -> Any:
        if sampling.chat:
            if self._tokenizer.chat_template is None:
                raise JobError("model_rejected_request", "The model has no chat template.")
            prompts = [
                self._tokenizer.apply_chat_template(
                    as_turns(prompt),
                    tokenize=False,
                    add_generation_prompt=True,
                )
                for prompt in prompts
            ]
        encoded = self._tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=not sampling.chat
        )
        longest = encoded["input_ids"].shape[1] + sampling.max_tokens
        if longest > self._positions:
            raise JobError(
                "model_rejected_request",
                f"A prompt with max_tokens needs {longest} positions; the model has "
                f"{self._positions}.",
            )
        kept = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        return {name: value.to(self._model.device) for name, value in kept.items()}

    def _stops(self, sampling: Sampling) -> list[StopStringCriteria]:
        if not sampling.stop:
            return []
        try:
            return [StopStringCriteria(self._tokenizer, list(sampling.stop))]
        except ValueError:
            # A tokenizer whose tokens are whole words: answers are cut when they are there.
            return []

    def _completion(
        self, tokens: Any, logprobs: Any, top: list[Top], sampling: Sampling
    ) -> Completion:
        """Cut at the end token (which counts) and at the first stop string (which does not)."""
        ends = torch.tensor(end_ids(self._model), device=tokens.device)
        places = torch.isin(tokens, ends).nonzero()
        count = int(places[0]) + 1 if len(places) else len(tokens)
        text = self._tokenizer.decode(tokens[:count], skip_special_tokens=True)
        found = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
        if found:
            text = text[: min(found)]
        values = [min(value, 0.0) for value in logprobs[:count].tolist()]
        shown = self._tokenizer.decode
        return Completion(
            text=text.replace("\x00", "\ufffd"),
            logprobs=values if sampling.logprobs else None,
            tokens=count,
            token_texts=self._texts(tokens[:count].tolist()) if sampling.logprobs else None,
            top_logprobs=[
                [(shown([token]), min(value, 0.0)) for token, value in place]
                for place in top[:count]
            ]
            if sampling.top_logprobs
            else None,
            cut=not (len(places) or found) and count >= sampling.max_tokens,
        )

    def _texts(self, tokens: list[int]) -> list[str]:
        """What each token adds to the text; of the bytes of one character the last adds all."""
        stream = DecodeStream(skip_special_tokens=True)
        backend = self._tokenizer.backend_tokenizer
        return [(stream.step(backend, token) or "").replace("\x00", "\ufffd") for token in tokens]


def _length(prompt: Prompt) -> int:
    """About how long; it only groups prompts."""
    return sum(len(str(turn["content"] or "")) for turn in as_turns(prompt))


def _drawing(sampling: Sampling, own_seeds: list[int] | None) -> list[Any]:
    """Processors that leave the token to take; none where it is the likeliest."""
    if sampling.temperature == 0:
        return []
    warpers: list[Any] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return [*warpers, Draw(own_seeds)]
