"""Pairs tokenised text by text are those that transformers makes of the whole pair."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from methods.inference import pair_tokenizer
from methods.inference.pair_tokenizer import PairTokenizer

_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "oslo", "is", "not", "a", "city", "in", "norway"]
TEXTS = ["Oslo", "", "Oslo is a city in Norway", "not " * 30, "a city", "  a  city ", "Zürich"]
PAIRS = [(a, b) for a in TEXTS for b in TEXTS if a != b]
_SPECIAL = [("[CLS]", 2), ("[SEP]", 3)]
PROCESSORS = {
    "bert": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "roberta": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "template": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=_SPECIAL
    ),
    "plain": None,
}


def _tokenizer(processor: str, side: str = "right") -> Any:
    backend = Tokenizer(models.WordLevel({w: k for k, w in enumerate(_WORDS)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if PROCESSORS[processor] is not None:
        backend.post_processor = PROCESSORS[processor]
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), _WORDS, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side=side, **names)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("limit", [64, 11])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_pairs_are_those_of_transformers(processor: str, limit: int, side: str) -> None:
    tokenizer = _tokenizer(processor, side)
    ours = PairTokenizer(tokenizer, limit)
    for part in (PAIRS[:3], PAIRS):  # texts that are known by then, and others
        found = ours.padded(ours(part))
        expected = tokenizer(
            [a for a, _ in part],
            [b for _, b in part],
            truncation="longest_first",
            max_length=limit,
            padding=True,
            return_tensors="np",
        )
        assert found.keys() == expected.keys()
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[name])


def test_a_tokenizer_that_looks_across_the_texts_gets_whole_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, expected = (PairTokenizer(_tokenizer("bert"), 64) for _ in range(2))
    monkeypatch.setattr(ours, "_joins", False)
    for one, other in zip(ours(PAIRS), expected(PAIRS), strict=True):
        assert one.ids.tolist() == other.ids.tolist()


def test_few_texts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_tokenizer, "_KEPT_TEXTS", 4)
    ours, expected = PairTokenizer(_tokenizer("bert"), 64), _tokenizer("bert")
    for pair in PAIRS:
        [one] = ours([pair])
        assert [one.ids.tolist()] == expected([pair[0]], [pair[1]])["input_ids"]
        assert len(ours._known) <= 4
    assert len(ours(PAIRS)) == len(PAIRS)
    assert len(ours._known) <= 4
