"""Requests of select-subset with a tiny LLaVA as the model."""

import base64

from tests.toys import tiny_llava as tiny

WORDS = ["what", "is", "it", "a", "b", "c", "d", "e", "f", "g"]
FINE_TUNE = {"epochs": 1, "learning_rate": 1e-2, "batch_rows": 8, "checkpoints": 3}
IMAGES = 24


def uri(seed):
    return "data:image/png;base64," + base64.b64encode(tiny.png(seed)).decode()


def conversation(number, image):
    question = ["what is it", "what", "is it what is it"][number % 3]
    answer = " ".join("abcdefg"[: 1 + number % 5])
    place = "<image>\n" if image else ""
    turns = [
        {"from": "human", "value": place + question},
        {"from": "gpt", "value": answer},
    ]
    return {"id": f"r{number}", "conversations": turns}


def inline(count=IMAGES, text_rows=4):
    rows = [conversation(n, True) | {"image": uri(n)} for n in range(count)]
    return rows + [conversation(n, False) for n in range(count, count + text_rows)]


def request(model, **more):
    return {
        "dataset": {"rows": inline()},
        "model": {"name": model, "fine_tune": FINE_TUNE, "batch_tokens": 280, "shard_rows": 1},
        "budget": {"count": 8},
        "params": {"clusters": 4},
    } | more
