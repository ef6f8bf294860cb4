"""The NLI model of the benchmark: a DeBERTa with random weights, and a tokenizer of its own."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import WordPieceTrainer
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from benchmarks.hallucination.score_hallucination import synthetic

#: What the model says of different answers: that they differ, or that they mean the same.
VERDICTS = {"different": -3.0, "alike": 3.0}
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def make(folder: Path, verdict: str) -> Path:
    """Save the model, 6 layers x 384, once; the verdict is a bias of the entailment logit."""
    if (folder / "config.json").exists():
        return folder
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    labels = ["contradiction", "neutral", "entailment"]
    config = DebertaV2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=6,
        intermediate_size=1536,
        relative_attention=True,
        position_buckets=256,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        initializer_range=0.05,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = DebertaV2ForSequenceClassification(config)
    with torch.no_grad():
        model.classifier.bias[2] = VERDICTS[verdict]
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        # The class has this name in every version of transformers that is compared.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return folder


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    trainer = WordPieceTrainer(vocab_size=2000, special_tokens=_SPECIAL, show_progress=False)
    texts = (text for item in synthetic(300, 10, 0.0, seed=1) for text in item)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer
