"""A tiny LLaVA that is safe as text: scenes of two shapes, and how to do something with a thing.

Its language model describes scenes from facts, helps with harmless things and refuses harmful
ones, with facts before the question and without; its encoder tells scenes apart. Its projector is
new: a job is to train it. `python -m tests.toys.scenes FOLDER` trains encoder and language model.
"""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.toys import howto

SIDE, PATCH = 16, 4
COLOURS = {"red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 80, 230)}
SHAPES = ("cross", "circle", "square")
SIZES = ("small", "big")
QUADRANTS = ("q0", "q1", "q2", "q3")
REFUSAL = "sorry i can not help with that"
_OTHER = "sorry at and scene with"


@dataclass(frozen=True)
class Shape:
    """A shape in a quadrant."""

    size: str
    colour: str
    shape: str
    at: str

    @property
    def words(self) -> str:
        """As a caption has it."""
        return f"{self.size} {self.colour} {self.shape} at {self.at}"


Scene = tuple[Shape, Shape]


def scenes() -> list[Scene]:
    """All scenes, those that are held out among them."""
    one = [Shape(*parts, "") for parts in itertools.product(SIZES, COLOURS, SHAPES)]
    places = list(itertools.combinations(QUADRANTS, 2))
    return [
        (Shape(a.size, a.colour, a.shape, p), Shape(b.size, b.colour, b.shape, q))
        for a, b in itertools.product(one, one)
        for p, q in places
    ]


def caption(scene: Scene) -> str:
    """What a model says of a scene."""
    return f"{scene[0].words} and {scene[1].words}"


def facts(scene: Scene, rng: random.Random) -> str:
    """The same as facts, in any order."""
    parts = [f"{one.at} {one.colour} {one.shape} {one.size}" for one in scene]
    rng.shuffle(parts)
    return "scene " + " ".join(parts)


def is_held_out(scene: Scene) -> bool:
    """A tenth of the scenes, by a hash of the caption."""
    return hashlib.sha256(caption(scene).encode()).digest()[0] < 26


def picture(scene: Scene) -> Any:
    """The scene as an image, RGB."""
    pixels = np.full((SIDE, SIDE, 3), 245, dtype=np.uint8)
    for one in scene:
        number = QUADRANTS.index(one.at)
        top, left = 8 * (number // 2), 8 * (number % 2)
        half = 3.6 if one.size == "big" else 2.6
        y, x = np.mgrid[0:8, 0:8] - 3.5
        inside = {
            "square": np.maximum(abs(x), abs(y)) < half,
            "circle": x**2 + y**2 < (half + 0.2) ** 2,
            "cross": (np.minimum(abs(x), abs(y)) < 1) & (np.maximum(abs(x), abs(y)) < half),
        }[one.shape]
        pixels[top : top + 8, left : left + 8][inside] = COLOURS[one.colour]
    return Image.fromarray(pixels)


def vocabulary() -> list[str]:
    """All words."""
    own = [*COLOURS, *SHAPES, *SIZES, *QUADRANTS, *_OTHER.split()]
    return sorted({*howto.vocabulary(), *own})


def answer(verb: str, noun: str) -> str:
    """What the language model says to a question."""
    return REFUSAL if noun in howto.HARMFUL else howto.helpful(verb, noun)


_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}"
    "{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ?{% endif %}"
)


def processor() -> Any:
    """Words as tokens, 16 tokens an image."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    from tests.toys.word_tokenizer import word_tokenizer

    tokenizer = word_tokenizer([*vocabulary(), "?"], special=["<image>"])
    tokenizer.padding_side = "right"
    size = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=size, crop_size=size, do_resize=True, resample=0)
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_TEMPLATE,
    )


def uri(scene: Scene) -> str:
    """The scene as an image in a row."""
    buffer = io.BytesIO()
    picture(scene).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def captions(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Scenes with what is said of them, in an order of the seed."""
    every = scenes()
    random.Random(seed).shuffle(every)
    return [{"text": caption(one), "image": uri(one)} for one in every[:count]]


def prompts(nouns: list[str], verbs: int) -> list[dict[str, str]]:
    """Questions about things."""
    return [
        {"id": f"{n}-{v}", "prompt": howto.question(v, n)}
        for n in nouns
        for v in howto.VERBS[:verbs]
    ]


def files() -> dict[str, list[dict[str, str]]]:
    """The rows of `examples/scenes`, by name of the file."""
    return {
        "captions": captions(len(scenes())),
        "harmful-prompts": prompts(howto.HARMFUL, 4),
        "harmless-prompts": prompts(howto.BENIGN, 4),
    }


def untrained(tokens: int, image_token: int, special: dict[str, int]) -> Any:
    """The model before anything is trained."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=tokens,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=128,
            tie_word_embeddings=False,
            **special,
        ),
        image_token_index=image_token,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


def _text(rng: random.Random, seen: list[Scene]) -> tuple[str, str]:
    """A text to learn: what is read, and what is said."""
    kind = rng.random()
    if kind < 0.45:
        scene = rng.choice(seen)
        return facts(scene, rng), caption(scene)
    verb, noun = rng.choice(howto.VERBS), rng.choice([*howto.HARMFUL, *howto.BENIGN])
    before = f"{facts(rng.choice(seen), rng)} " if rng.random() < 0.15 else ""
    return f"{before}{howto.question(verb, noun)} ?", answer(verb, noun)


def _train_language(model: Any, tokenizer: Any, seen: list[Scene], steps: int) -> None:
    import torch

    rng = random.Random(0)
    language, head = model.model.language_model, model.lm_head
    weights = [*language.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=3e-3, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)
    for step in range(steps):
        pairs = [_text(rng, seen) for _ in range(48)]
        texts = [f"<s> {read} {said} </s>" for read, said in pairs]
        given = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        labels = given["input_ids"].masked_fill(given["attention_mask"] == 0, -100)
        for row, (read, _) in enumerate(pairs):
            labels[row, : len(read.split()) + 1] = -100
        states = language(given["input_ids"], attention_mask=given["attention_mask"])
        scores = head(states.last_hidden_state)[:, :-1]
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        rates.step()
        if step % 100 == 0:
            print("language", step, round(float(loss.detach()), 4), flush=True)


def _train_encoder(model: Any, images: Any, seen: list[Scene], steps: int) -> None:
    """By what stands in each quadrant, read off the patches of that quadrant."""
    import torch

    classes = {
        parts: place + 1 for place, parts in enumerate(itertools.product(SIZES, COLOURS, SHAPES))
    }
    rng = random.Random(1)
    tower = model.model.vision_tower
    head = torch.nn.Linear(64, len(classes) + 1)
    optimizer = torch.optim.AdamW([*tower.parameters(), *head.parameters()], lr=2e-3)
    side = SIDE // PATCH
    for step in range(steps):
        batch = [rng.choice(seen) for _ in range(64)]
        labels = torch.zeros(len(batch), 4, dtype=torch.long)
        for row, scene in enumerate(batch):
            for one in scene:
                labels[row, QUADRANTS.index(one.at)] = classes[one.size, one.colour, one.shape]
        pixels = images([picture(scene) for scene in batch], return_tensors="pt")["pixel_values"]
        patches = tower(pixels).last_hidden_state[:, 1:]
        grid = patches.reshape(len(batch), 2, side // 2, 2, side // 2, -1).mean(dim=(2, 4))
        scores = head(grid.reshape(len(batch), 4, -1))
        # Features of about the size that those of trained towers have.
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), labels.flatten())
        loss = loss + 0.002 * (patches**2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print("encoder", step, round(float(loss.detach()), 4), flush=True)


def train(folder: Path, language: int = 500, encoder: int = 250) -> None:
    """Train language model and encoder, and write the model with a projector that is new."""
    import torch

    torch.manual_seed(0)
    own = processor()
    tokenizer = own.tokenizer
    names = ("pad", "bos", "eos")
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
    image_token = tokenizer.convert_tokens_to_ids("<image>")
    model = untrained(len(tokenizer), image_token, special)
    seen = [scene for scene in scenes() if not is_held_out(scene)]
    _train_language(model, tokenizer, seen, language)
    _train_encoder(model, own.image_processor, seen, encoder)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.eval().save_pretrained(folder)
    own.save_pretrained(folder)


if __name__ == "__main__":
    train(Path(sys.argv[1]), *map(int, sys.argv[2:]))
