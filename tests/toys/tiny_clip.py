"""A CLIP of a few thousand weights, with tokenizer and image processor, from configurations."""

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.toys.tiny_llava import PATCH, SIZE

SPECIAL = ["<pad>", "<unk>", "<|startoftext|>", "<|endoftext|>"]
LONGEST = 16


def processor(words):
    words = list(dict.fromkeys([*SPECIAL, *words]))
    core = Tokenizer(WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 2), ("<|endoftext|>", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        model_max_length=LONGEST,
    )
    images = CLIPImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    return CLIPProcessor(images, tokenizer)


def model(vocabulary, hidden=16, seed=0):
    size = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    text = CLIPTextConfig(
        **size,
        vocab_size=vocabulary,
        max_position_embeddings=LONGEST,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    vision = CLIPVisionConfig(**size, image_size=SIZE, patch_size=PATCH)
    torch.manual_seed(seed)
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=hidden)
    ).eval()


def save(folder, words, **sizes):
    """Write a model folder as a hub would have it."""
    found = processor(words)
    model(len(found.tokenizer), **sizes).save_pretrained(folder)
    found.save_pretrained(folder)
    return folder
