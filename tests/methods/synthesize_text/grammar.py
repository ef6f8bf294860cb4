"""A tiny language model of two grammars, trained in seconds, and real texts of both."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.toys.word_tokenizer import word_tokenizer

THINGS = ["film", "plot", "story", "cast", "script", "scene", "hero", "ending", "music", "pace"]
OPENERS = ["the", "this", "its", "a"]
ADVERBS = ["truly", "quite", "often", "simply", "really", "always", "mostly", "so"]
ADJECTIVES = {
    "great": ["warm", "witty", "bright", "moving", "clever", "fresh", "charming", "rich"],
    "bad": ["dull", "flat", "loud", "stale", "messy", "cold", "clumsy", "empty"],
}
JOINERS = ["and", "but", "while", "because"]
EXTRA = ["the", "It", "was", "great", "bad", "good", "review", ":", ".", "A"]
WORDS = sorted(
    {
        *THINGS,
        *OPENERS,
        *ADVERBS,
        *ADJECTIVES["great"],
        *ADJECTIVES["bad"],
        *JOINERS,
        *EXTRA,
        *(f"name{k}" for k in range(120)),
    }
)
LABELS = [{"name": "negative", "word": "bad"}, {"name": "positive", "word": "great"}]
TEMPLATE, INSTRUCTION = "{text} It was {word}", "A {word} review :"


def sentence(word: str, rng: np.random.Generator) -> str:
    """A sentence of the grammar of a label's word."""

    def clause() -> str:
        name = f"name{rng.integers(120)}"
        thing, opener = rng.choice(THINGS), rng.choice(OPENERS)
        return f"{opener} {thing} {name} was {rng.choice(ADVERBS)} {rng.choice(ADJECTIVES[word])}"

    text = clause()
    if rng.random() < 0.5:
        text += f" {rng.choice(JOINERS)} {clause()}"
    return text + " ."


def sentences(word: str, count: int, seed: int) -> list[str]:
    """Different ones."""
    rng, found = np.random.default_rng(seed), dict[str, None]()
    while len(found) < count:
        found[sentence(word, rng)] = None
    return list(found)


def rows(count: int, seed: int = 7) -> list[dict[str, str]]:
    """Real texts of both labels."""
    return [
        {"text": text, "label": label["name"]}
        for k, label in enumerate(LABELS)
        for text in sentences(label["word"], count, seed + k)
    ]


def train(
    folder: Path,
    sentence_of: Callable[[str, np.random.Generator], str],
    before: str,
    after: str,
    vocabulary: Sequence[str],
    words: Sequence[str],
    steps: int,
) -> None:
    """Train a Llama of 64 dimensions on sentences of label words: a third by themselves, a third
    with `before`, a third with `after`, which have the word in place of `{word}`."""
    own = word_tokenizer(vocabulary)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(own),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=own.pad_token_id,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        texts = []
        for word, kind in itertools.product(words, (0, 1, 2)):
            for _ in range(5):
                text = sentence_of(word, rng)
                first = before.replace("{word}", word) + " " if kind == 1 else ""
                last = after.replace("{word}", word) if kind == 2 else ""
                texts.append(f"{first}{text}{last} </s>")
        given = own(texts, return_tensors="pt", padding=True)
        labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
        loss = model(**given, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    own.save_pretrained(folder)


@functools.cache
def model_folder() -> str:
    """A model that has read both grammars."""
    folder = Path(tempfile.mkdtemp(prefix="grammar-"))
    after = TEMPLATE.removeprefix("{text}")
    train(folder, sentence, INSTRUCTION, after, WORDS, ("great", "bad"), steps=300)
    return str(folder)


def request(**more: object) -> dict[str, object]:
    """A request over 40 real texts a label, half of them held out."""
    return {
        "model": model_folder(),
        "texts": {"rows": rows(40)},
        "labels": LABELS,
        "template": TEMPLATE,
        "instruction": INSTRUCTION,
        "per_label": 20,
        "max_tokens": 20,
        **more,
    }
