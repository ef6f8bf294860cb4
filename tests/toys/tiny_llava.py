"""A LLaVA of a few thousand weights, with tokenizer and image processor, from configurations."""

import io

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from methods.select_subset.proxy.model.attention_capture import IMPLEMENTATION
from methods.select_subset.proxy.model.proxy import make_proxy

SIZE, PATCH = 24, 6
IMAGE_TOKENS = (SIZE // PATCH) ** 2
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<unk>"]


def processor(words, template=None):
    words = list(dict.fromkeys([*SPECIAL, "USER:", "ASSISTANT:", *words]))
    core = Tokenizer(WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )
    images = CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def model(vocabulary, hidden=32, layers=2, heads=4, kv_heads=2, seed=0, attention=IMPLEMENTATION):
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=SIZE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=3,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(seed)
    return LlavaForConditionalGeneration._from_config(config, attn_implementation=attention)


def proxy(words, template=None, max_tokens=512, **sizes):
    found = processor(words, template)
    return make_proxy(model(len(found.tokenizer), **sizes).eval(), found, max_tokens)


def save(folder, words, **sizes):
    """Write a model folder as a hub would have it."""
    found = processor(words)
    model(len(found.tokenizer), **sizes).save_pretrained(folder)
    found.save_pretrained(folder)
    return folder


def png(seed, side=None):
    side = SIZE if side is None else side
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
