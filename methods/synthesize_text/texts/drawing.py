"""Runs `synthesize-text-draws`: texts of a label as a language model writes them."""

from __future__ import annotations

import json
import re

import numpy as np

from methods.context import RunContext
from methods.inference.completion import Completion, Sampling, Usage
from methods.inference.llm import language_model
from methods.resume import ResumeStore
from methods.row_files import SURROGATES
from methods.synthesize_text.child_jobs import DrawsPart, TextsMade
from methods.synthesize_text.seeds import derived_seed
from methods.synthesize_text.texts.overlap import first_words
from methods.typing import IntArray

#: The end of a sentence, closing marks and all, in scripts with a full stop of their own too.
_SENTENCE = re.compile(r"[.!?…。！？؟।][\"'”’»)\]]*(?=\s|$)|[。！？]")


def run(spec: DrawsPart, ctx: RunContext) -> TextsMade:
    """Draw the groups; a killed part goes on with the group that it was at."""
    model = language_model(ctx.models, spec.generator.model)
    store, usage = ResumeStore(ctx, spec.model_dump_json()), Usage()
    lines, cut, tokens = [], 0, 0
    for done, group in enumerate(spec.groups):
        ctx.progress("drawing", done * spec.group_size, len(spec.groups) * spec.group_size, "texts")
        kept = store.find(f"group-{group}")
        if kept is None:
            seed = derived_seed(spec.seed, "draw", spec.prompt, group)
            before = usage.prompt_tokens + usage.completion_tokens
            sampling = Sampling(
                n=spec.group_size,
                temperature=spec.generator.temperature,
                top_p=spec.generator.top_p,
                max_tokens=spec.max_tokens,
                stop=tuple(spec.generator.stop),
                seed=seed if spec.generator.send_seed else None,
                logprobs=False,
                chat=spec.generator.chat,
            )
            drawn = model.sample(
                [(0, spec.prompt)],
                sampling,
                usage,
                ctx.check,
                lambda why: ctx.progress(why, 0, 1, "texts"),
            )
            answers = [answer for _, found in drawn for answer in found]
            kept = json.dumps(
                {
                    "texts": _texts(answers, spec, group),
                    "cut": sum(answer.cut for answer in answers),
                    "tokens": usage.prompt_tokens + usage.completion_tokens - before,
                }
            ).encode()
            store.keep(f"group-{group}", kept)
        made = json.loads(kept)
        lines += [json.dumps({"text": text, "group": group}) for text in made["texts"]]
        cut, tokens = cut + made["cut"], tokens + made["tokens"]
    data = "".join(line + "\n" for line in lines).encode()
    ctx.save_artifact("texts.jsonl", data, "application/x-ndjson")
    return TextsMade(texts=len(lines), cut=cut, forward_tokens=tokens)


def _texts(answers: list[Completion], spec: DrawsPart, group: int) -> list[str]:
    lengths: list[int | None] = [None] * len(answers)
    if spec.word_counts is not None:
        rng = np.random.default_rng(derived_seed(spec.seed, "length", spec.prompt, group))
        drawn: IntArray = rng.choice(np.array(spec.word_counts), size=len(answers))
        lengths = [max(1, length) for length in drawn.tolist()]
    return [
        ended(answer.text.translate(SURROGATES), answer.cut and spec.ends == "sentence", length)
        for answer, length in zip(answers, lengths, strict=True)
    ]


def ended(text: str, to_sentence: bool, words: int | None) -> str:
    """A text without the white space around it.

    Args:
        to_sentence: it ends after its last whole sentence, if it has one.
        words: it has so many words at most.
    """
    text = text.strip()
    if to_sentence and (ends := [found.end() for found in _SENTENCE.finditer(text)]):
        text = text[: ends[-1]]
    return text if words is None else first_words(text, words)
