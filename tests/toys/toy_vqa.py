"""A world of 96 facts: images of 12 hues, 8 questions about each, an answer word each."""

from __future__ import annotations

import colorsys
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.toys import tiny_llava as tiny

QUESTIONS, HUES, TEMPLATES = 8, 12, 12
FACTS = QUESTIONS * HUES
_PHRASES = ("q{0}", "tell q{0} now", "please say the q{0}")
WORDS = [
    "tell",
    "now",
    "please",
    "say",
    "the",
    *(f"q{q}" for q in range(QUESTIONS)),
    *(f"answer{f}" for f in range(FACTS)),
]


@dataclass
class Facts:
    """A data set: pictures, questions and answers, with what only the experiment knows.

    Attributes:
        fact: (N,) 0 to 95. copy: (N,) rows that are near-copies of a template.
    """

    rows: list[dict[str, Any]]
    images: list[bytes]
    fact: np.ndarray[Any, np.dtype[np.int64]]
    copy: np.ndarray[Any, np.dtype[np.bool_]]


def picture(hue: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.float64]]:
    """One hue of some brightness, with a dark patch somewhere."""
    colour = np.array(colorsys.hsv_to_rgb(hue / HUES, 1, rng.uniform(0.6, 1)))
    image = np.tile(colour, (tiny.SIZE, tiny.SIZE, 1))
    top, left = rng.integers(0, tiny.SIZE - 8, 2)
    image[top : top + 8, left : left + 8] *= 0.3
    return image


def as_png(image: np.ndarray[Any, Any], rng: np.random.Generator) -> bytes:
    """With pixel noise."""
    from PIL import Image

    noisy = np.clip(image + 0.05 * rng.normal(size=image.shape), 0, 1)
    buffer = io.BytesIO()
    Image.fromarray((255 * noisy).round().astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def row_of(number: int, fact: int, phrase: int) -> dict[str, Any]:
    """A conversation about a fact."""
    question = _PHRASES[phrase].format(fact % QUESTIONS)
    turns = [
        {"from": "human", "value": f"<image>\n{question}"},
        {"from": "gpt", "value": f"answer{fact}"},
    ]
    return {"id": f"{number:05}", "task": f"q{fact % QUESTIONS}", "conversations": turns}


def make_facts(count: int, copies: float, seed: int) -> Facts:
    """`copies` of the rows are near-copies of 12 templates, the others even over the facts."""
    rng = np.random.default_rng([seed, 5])
    templates = rng.choice(FACTS, TEMPLATES, replace=False)
    pictures = [picture(int(fact) // QUESTIONS, rng) for fact in templates]
    phrases = rng.integers(3, size=TEMPLATES)
    copied = rng.permutation(np.arange(count) < round(copies * count))
    own = rng.permutation(np.arange(int((~copied).sum())) % FACTS)
    facts = np.zeros(count, dtype=np.int64)
    facts[~copied] = own
    rows, images = [], []
    for number in range(count):
        if copied[number]:
            which = int(rng.integers(TEMPLATES))
            facts[number] = templates[which]
            image, phrase = pictures[which], int(phrases[which])
        else:
            image, phrase = picture(int(facts[number]) // QUESTIONS, rng), int(rng.integers(3))
        rows.append(row_of(number, int(facts[number]), phrase))
        images.append(as_png(image, rng))
    return Facts(rows, images, facts, copied)


def make_test(seed: int) -> Facts:
    """8 new images of every fact."""
    return make_facts(8 * FACTS, 0.0, seed + 1_000_000)


def write_tar(path: Path, facts: Facts) -> None:
    """As a WebDataset."""
    with tarfile.open(path, "w") as archive:
        for row, image in zip(facts.rows, facts.images, strict=True):
            for ending, data in (("json", json.dumps(row).encode()), ("png", image)):
                member = tarfile.TarInfo(f"{row['id']}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
