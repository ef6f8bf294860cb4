"""Leaving out the positions that no token of a pass has changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
)

from methods.inference.deberta import bounded_positions

VARIANTS: dict[str, dict[str, Any]] = {
    "v3": {"position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"},
    "convolution": {"position_buckets": 8, "share_att_key": True, "conv_kernel_size": 3},
    "own projections": {"position_buckets": 8},
    "without buckets": {"max_relative_positions": 24},
    "one way": {"position_buckets": 8, "pos_att_type": ["c2p"]},
}


def _model(**fields: Any) -> Any:
    torch.manual_seed(0)
    usual = {
        "vocab_size": 50,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 32,
        "initializer_range": 0.5,
        "num_labels": 3,
        "max_position_embeddings": 64,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
    }
    config = DebertaV2Config(**(usual | fields))
    return DebertaV2ForSequenceClassification(config).eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_model_says_stays_the_same(variant: str) -> None:
    model = _model(**VARIANTS[variant])
    passes = []
    for length in (40, 3, 8, 9, 1, 17, 40):  # shorter and longer than the buckets, back and forth
        ids = torch.randint(5, 50, (4, length))
        mask = torch.arange(length) < torch.tensor([[length], [1], [max(1, length - 1)], [length]])
        passes.append({"input_ids": ids, "attention_mask": mask.long()})
    with torch.inference_mode():
        expected = [model(**batch).logits for batch in passes]
    bound = bounded_positions(model)
    assert bound is not None
    projected = _rows_projected(model)
    for batch, logits in zip(passes, expected, strict=True):
        bound(batch["input_ids"].shape[1])
        with torch.inference_mode():
            torch.testing.assert_close(model(**batch).logits, logits, atol=1e-5, rtol=1e-5)
    widest = projected.pop(0)
    spans = [min(batch["input_ids"].shape[1], widest) for batch in passes]
    assert projected == [2 * span for span in spans]


def _rows_projected(model: Any) -> list[int]:
    """The widest span first, then the rows of relative positions of every pass."""
    attention = model.base_model.encoder.layer[0].attention.self
    rows = [attention.pos_ebd_size]
    encoder, get = model.base_model.encoder, model.base_model.encoder.get_rel_embedding

    def noting() -> Any:
        found = get()
        rows.append(len(found))
        return found

    encoder.get_rel_embedding = noting
    return rows


def test_other_models_are_left_alone() -> None:
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3}
    assert bounded_positions(BertForSequenceClassification(BertConfig(**small))) is None
    assert bounded_positions(_model(relative_attention=False)) is None
    assert bounded_positions(object()) is None
