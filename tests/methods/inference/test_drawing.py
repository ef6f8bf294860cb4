"""Every prompt is computed once for all its answers, and tokens are drawn by their probability."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoTokenizer,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from methods.errors import JobError
from methods.inference import generate
from methods.inference.completion import Completion, Sampling, Usage
from methods.inference.generate import Generator
from methods.inference.logits_processors import Draw
from tests.toys.tiny_models import tiny_llama

PROMPTS = ["Question: What is the capital of France? Answer:", "one two three", "x"]
_SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "vocab_size": 300}
_HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}


def _llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**_SMALL, **_HEADS, intermediate_size=64))


def _gemma() -> Any:
    """Two layers of three see 8 tokens only, fewer than the first prompt has."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Gemma3TextConfig(
        **_SMALL, **_HEADS, intermediate_size=64, sliding_window=8, layer_types=kinds
    )
    model = Gemma3ForCausalLM(config)
    model.generation_config.cache_implementation = "hybrid"
    return model


def _gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=300))


def _mamba() -> Any:
    return MambaForCausalLM(MambaConfig(**_SMALL, state_size=4))


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny"))


def _generator(folder: Path, make: Any) -> Generator:
    torch.manual_seed(0)
    model = make().eval()
    model.generation_config.eos_token_id = 1
    return Generator(model, AutoTokenizer.from_pretrained(folder))


def _sample(model: Generator, wanted: Sampling) -> dict[int, list[Completion]]:
    return dict(model.sample(enumerate(PROMPTS), wanted, Usage(), lambda: None))


@pytest.mark.parametrize("make", [_llama, _gemma, _gpt2, _mamba])
def test_sharing_a_prompt_changes_no_answer(
    make: Any, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _generator(tokenizer_folder, make)
    wanted = Sampling(n=5, max_tokens=10, top_p=0.9, temperature=1.3, seed=11, top_logprobs=2)
    shared = _sample(model, wanted)
    assert shared == _sample(model, wanted), "a seed decides the draw"
    assert len({answer.text for answer in shared[0]}) > 1
    monkeypatch.setattr(generate, "shared_prefix", lambda *_: None)
    for number, answers in _sample(model, wanted).items():
        assert [a.text for a in answers] == [a.text for a in shared[number]]
        for one, other in zip(answers, shared[number], strict=True):
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize(("make", "shares"), [(_llama, True), (_gemma, True), (_mamba, False)])
def test_a_prompt_is_computed_once(make: Any, shares: bool, tokenizer_folder: Path) -> None:
    model = _generator(tokenizer_folder, make)
    computed: list[int] = []

    def count(module: Any, args: Any, named: dict[str, Any]) -> None:
        computed.append((args[0] if args else named["input_ids"]).numel())

    model._model.base_model.register_forward_pre_hook(count, with_kwargs=True)
    _sample(model, Sampling(n=5, max_tokens=1))
    length = model._encode(PROMPTS, Sampling())["input_ids"].shape[1]
    once, repeated = 3 * (length - 1), 3 * 5 * length
    assert computed == ([once, 3 * 5] if shares else [repeated])


def test_a_single_token_has_nothing_to_share(tokenizer_folder: Path) -> None:
    model = _generator(tokenizer_folder, _llama)
    wanted = Sampling(n=3, max_tokens=4, seed=0)
    ((_, answers),) = model.sample([(0, "x")], wanted, Usage(), lambda: None)
    assert len(answers) == 3


def _draw(scores: torch.Tensor) -> list[int]:
    left = Draw()(None, scores)
    assert (left == 0).sum(dim=1).tolist() == [1] * len(scores)
    assert ((left == 0) | (left == -math.inf)).all()
    found: list[int] = left.argmax(dim=1).tolist()
    return found


@pytest.mark.parametrize("width", [1, 2, 7, 300])
def test_tokens_are_drawn_by_their_probability(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    scores = 2 * torch.randn(width, generator=generator)
    scores[1::3] = -math.inf
    draws = 40_000
    torch.manual_seed(1)
    counts = np.bincount(_draw(scores.repeat(draws, 1)), minlength=width)
    expected = torch.softmax(scores.double(), -1).numpy() * draws
    assert not counts[expected == 0].any(), "what a nucleus cut off is never drawn"
    few = expected[expected > 0]
    deviation = (counts[expected > 0] - few) ** 2 / few
    # A chi-squared with as many degrees of freedom has this mean and standard deviation.
    assert deviation.sum() <= len(few) - 1 + 5 * math.sqrt(2 * len(few))


def test_a_draw_at_the_very_end_finds_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.tensor([[0.0, -math.inf, 1.0, -math.inf, -math.inf]])
    for value, token in ((0.0, 0), (1.0, 2)):  # 1 is never drawn; rounding may make it
        drawn = torch.full((1, 1), value, dtype=torch.float64)
        monkeypatch.setattr(torch, "rand", lambda *_, drawn=drawn, **__: drawn)
        assert _draw(scores) == [token]


def test_logits_that_are_not_finite_are_named() -> None:
    with pytest.raises(JobError, match="not finite") as caught:
        Draw()(None, torch.full((2, 9), math.nan))
    assert caught.value.code == "numerical_failure"
