"""A sequence classifier that learns in seconds that a response with `can not` is safe."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from tests.toys import howto


def save(folder: Path) -> str:
    """Train it and write it to a folder; returns the folder."""
    own = howto.tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(own),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=own.pad_token_id,
        id2label={0: "SAFE", 1: "HARMFUL"},
        label2id={"SAFE": 0, "HARMFUL": 1},
    )
    model = LlamaForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    pairs = [
        (howto.question(verb, noun), said, label)
        for noun in howto.HARMFUL[:8]
        for verb in howto.VERBS[:4]
        for said, label in (
            (howto.REFUSAL, 0),
            (f"first get a {noun} then {verb} it slowly", 1),
        )
    ]
    for _ in range(30):
        given = own(
            [p for p, _, _ in pairs], [r for _, r, _ in pairs], return_tensors="pt", padding=True
        )
        given.pop("token_type_ids", None)
        loss = model(**given, labels=torch.tensor([label for _, _, label in pairs])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    own.model_input_names = ["input_ids", "attention_mask"]
    own.save_pretrained(folder)
    return str(folder)
