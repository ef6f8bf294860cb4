"""Two-layer transformers with random weights and a word tokenizer, made in a second."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

WORDS = [f"w{i}" for i in range(60)]


def _tokenizer(
    folder: Path, *, classes: bool, longest: int | None, pair: str | None = None
) -> None:
    special = ["[PAD]", "[CLS]", "[SEP]"] if classes else ["<s>"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=None))
    tokenizer.pre_tokenizer = Whitespace()
    names: dict[str, str] = {"bos_token": "<s>"}
    if classes:
        names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        template, marks = "[CLS] $A [SEP]", [("[CLS]", 1), ("[SEP]", 2)]
    else:
        template, marks = "<s> $A", [("<s>", 0)]
    tokenizer.post_processor = TemplateProcessing(single=template, pair=pair, special_tokens=marks)
    more = {} if longest is None else {"model_max_length": longest}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **more).save_pretrained(folder)


def make(kind: str, folder: Path, seed: int = 0, longest: int | None = None) -> str:
    """Save a model of a kind: `llama`, `bert`, `roberta` or `t5`; its path as a string.

    Args:
        longest: the tokenizer's own limit; None for none.
    """
    torch.manual_seed(seed)
    size = {"vocab_size": 70, "hidden_size": 16, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 2, "intermediate_size": 24}
    if kind == "llama":
        model = LlamaModel(LlamaConfig(**size, max_position_embeddings=64))
    elif kind == "bert":
        model = BertModel(BertConfig(**size, max_position_embeddings=64))
    elif kind == "roberta":
        model = RobertaModel(RobertaConfig(**size, max_position_embeddings=34, pad_token_id=1))
    else:
        model = T5Model(
            T5Config(vocab_size=70, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
        )
    with torch.no_grad():
        for parameter in model.parameters():
            # Weights of the usual size make all hidden states of a tiny model nearly equal.
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(folder)
    _tokenizer(folder, classes=kind != "llama", longest=longest)
    return str(folder)


def texts(count: int, seed: int = 0, longest: int = 20) -> list[str]:
    """Random texts of 1 to `longest` known words."""
    generator = torch.Generator().manual_seed(seed)

    def number(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    return [
        " ".join(WORDS[number(len(WORDS))] for _ in range(1 + number(longest)))
        for _ in range(count)
    ]


def make_nli(folder: Path, labels: tuple[str, ...], seed: int = 0) -> str:
    """Save a classifier of text pairs whose classes have these names; its path as a string.

    Equal seeds give equal classes under equal names, wherever the names stand.
    """
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=70,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        initializer_range=0.5,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = BertForSequenceClassification(config)
    order = sorted(range(len(labels)), key=lambda k: labels[k].lower())
    with torch.no_grad():
        model.classifier.weight[order] = torch.randn(len(labels), 16)
    model.save_pretrained(folder)
    _tokenizer(folder, classes=True, longest=None, pair="[CLS] $A [SEP] $B:1 [SEP]:1")
    return str(folder)
