"""Tiny models of other image-text families than LLaVA, with their processors, from configurations.

Each `save_...` writes a folder as a hub would have it, and returns it.
"""

from __future__ import annotations

import json

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
)

from tests.toys.word_tokenizer import word_tokenizer

_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


def save_qwen2_vl(folder, words):
    """Any resolution: 28 pixels a token."""
    vision = {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": 32}
    kinds = (Qwen2VLConfig, Qwen2VLForConditionalGeneration, "Qwen2VLProcessor")
    return _save_qwen(folder, words, vision, kinds)


def save_qwen2_5_vl(folder, words):
    """The same with windows in the image encoder."""
    vision = {"depth": 1, "num_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    vision |= {"out_hidden_size": 32, "fullatt_block_indexes": [0]}
    kinds = (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, "Qwen2_5_VLProcessor")
    return _save_qwen(folder, words, vision, kinds)


def _save_qwen(folder, words, vision, kinds):
    config_kind, model_kind, processor = kinds
    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = word_tokenizer(words, special=special)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in special}
    config = config_kind(
        text_config={
            **_TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [1, 1, 2],
            },
        },
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(0)
    model_kind(config).save_pretrained(folder)
    tokenizer.chat_template = (
        "{% for m in messages %}{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %} answer:{% endif %}"
    )
    tokenizer.save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": 112 * 112})
    images.save_pretrained(folder)
    _name_processor(folder, processor)
    return folder


def save_paligemma(folder, words):
    """Image tokens first, and attention of the prompt both ways."""
    tokenizer = word_tokenizer(words, special=["<image>"], shown=["\n"])
    config = PaliGemmaConfig(
        text_config={**_TEXT, "vocab_size": len(tokenizer), "head_dim": 8, "model_type": "gemma"},
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 6,
            "projection_dim": 32,
        },
        projection_dim=32,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    images = SiglipImageProcessorPil(size={"height": 24, "width": 24})
    images.image_seq_length = 16
    PaliGemmaProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def save_idefics3(folder, words):
    """An image is cut into tiles, each with text around its tokens."""
    special = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = word_tokenizer(words, special=[*special, *tiles])
    config = Idefics3Config(
        text_config={**_TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 6,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    images = Idefics3ImageProcessorPil(
        size={"longest_edge": 48}, max_image_size={"longest_edge": 24}, do_image_splitting=True
    )
    template = (
        "{% for m in messages %}user: {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}"
        "{% endfor %}<end_of_utterance> {% endfor %}answer:"
    )
    Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=template).save_pretrained(
        folder
    )
    return folder


def _name_processor(folder, name):
    """As files of a hub do: with the processor's class."""
    for file in ("preprocessor_config.json", "tokenizer_config.json"):
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), "processor_class": name}))
