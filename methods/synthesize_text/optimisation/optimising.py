"""Runs `synthesize-text-texts`: stacks of groups by ADMM, and texts of random tokens."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch

from methods.children import Child
from methods.context import RunContext
from methods.errors import JobError
from methods.resume import ResumeStore
from methods.synthesize_text.child_jobs import (
    TARGET_PART,
    Optimise,
    RandomVocabulary,
    TextsMade,
    TextsPart,
)
from methods.synthesize_text.gradients.factors import Factors, Target
from methods.synthesize_text.gradients.label_model import LabelModel
from methods.synthesize_text.gradients.loading import label_model
from methods.synthesize_text.gradients.matching import MatchTarget
from methods.synthesize_text.gradients.stored_factors import read_target
from methods.synthesize_text.optimisation.admm import Admm, Frame, Recipe
from methods.synthesize_text.optimisation.projection import Projection, allowed_tokens
from methods.synthesize_text.seeds import derived_seed
from methods.synthesize_text.texts.drawing import ended
from methods.synthesize_text.texts.filters import official_ban
from methods.synthesize_text.texts.template import Template

#: The published code: every row of the start has this norm, and so has Phi-1.5's learning rate.
_OFFICIAL_NORM, _OFFICIAL_WIDTH = 1.4, 2_048
_OFFICIAL_CANDIDATES = 500
#: Factors of a target of noise at most.
_NOISE = 256
#: Texts of starts that are tried in one computation.
_TRIED_TOGETHER = 160

#: The published settings that a request cannot change.
_OFFICIAL: dict[str, Any] = {
    "lr": 0.008,
    "clip": 1.0,
    "penalty": "sum",
    "select": "penalised",
    "patience": None,
}


def run(spec: TextsPart, ctx: RunContext) -> TextsMade:
    """Make the groups of a part."""
    if isinstance(spec.work, RandomVocabulary):
        texts, made = _random(spec, spec.work, ctx)
    else:
        texts, made = _optimised(spec, spec.work, ctx)
    lines = [
        json.dumps({"text": text, "group": group})
        for group, group_texts in zip(spec.groups, texts, strict=True)
        for text in group_texts
    ]
    data = "".join(line + "\n" for line in lines).encode()
    ctx.save_artifact("texts.jsonl", data, "application/x-ndjson")
    return made


def _random(
    spec: TextsPart, work: RandomVocabulary, ctx: RunContext
) -> tuple[list[list[str]], TextsMade]:
    model = label_model(ctx, work.model, spec.device)
    allowed = allowed_tokens(model, model.special)
    texts = []
    for group in spec.groups:
        rng = np.random.default_rng(derived_seed(spec.seed, "random", group))
        ids = rng.choice(allowed, size=(spec.group_size, work.tokens))
        texts.append([_decoded(model, row) for row in ids.tolist()])
    total = len(spec.groups) * spec.group_size
    return texts, TextsMade(texts=total, cut=0, forward_tokens=0)


def _decoded(model: LabelModel, ids: list[int]) -> str:
    text = model.tokenizer.decode(ids, skip_special_tokens=True)
    return str(text).replace("\x00", "\ufffd").strip()


def banned_tokens(model: LabelModel, ban: str | list[str]) -> set[int]:
    """Tokens that are never written: special ones, and those that a request bans."""
    banned = set(model.special)
    if ban == "none":
        return banned
    for token in range(len(model.tokenizer)):
        text = model.tokenizer.decode([token])
        if official_ban(text) if ban == "official" else any(one in text for one in ban):
            banned.add(token)
    return banned


def _optimised(
    spec: TextsPart, work: Optimise, ctx: RunContext
) -> tuple[list[list[str]], TextsMade]:
    stack = _Stack(spec, work, ctx)
    total = len(spec.groups) * spec.group_size
    outcome = stack.admm.run(
        stack.start(),
        lambda done, steps: ctx.progress("optimising", done * total, steps * total, "text-steps"),
        ctx.check,
        ctx.metric,
    )
    to_sentence = work.ends == "sentence"
    texts = [
        [ended(_decoded(stack.model, ids), to_sentence, None) for ids in group]
        for group in outcome.ids.tolist()
    ]
    length = work.tokens + len(stack.frame.before) + len(stack.frame.after)
    steps = outcome.steps * int(work.params["inner_steps"])
    curves = {name: values.tolist() for name, values in outcome.curves.items()}
    ctx.save_artifact("curves.json", json.dumps(curves).encode(), "application/json")
    return texts, TextsMade(
        texts=total,
        cut=0,
        forward_tokens=total * length * steps,
    )


class _Stack:
    """Groups that are optimised in one computation."""

    def __init__(self, spec: TextsPart, work: Optimise, ctx: RunContext) -> None:
        self._spec, self._work, self._ctx = spec, work, ctx
        aim = work.target
        self.model = model = label_model(ctx, aim.model, spec.device)
        banned = banned_tokens(model, work.ban)
        self._allowed = allowed_tokens(model, banned)
        self._norm = float(model.embeddings.norm(dim=1).mean())
        self._target = MatchTarget.of(self._aim(), model.device)
        sample = next((text for text in work.starts if text), "A text.")
        encoded = model.encode(Template.parse(aim.template), [sample], aim.words)[0]
        self.frame = Frame(
            encoded.ids[: encoded.start], encoded.ids[encoded.end :], encoded.words[aim.label]
        )
        needed = len(self.frame.before) + work.tokens + len(self.frame.after) + 1
        prompt = list(model.tokenizer(work.prompt)["input_ids"])
        while len(prompt) > 1 and prompt[-1] in model.special:
            # Some tokenizers end every string.
            prompt.pop()
        self._samples = [ids for text in work.starts if (ids := model.token_ids(text))]
        if not self._samples and not work.reference and work.params["start"] == "sample":
            raise JobError(
                "input_invalid",
                "The model has no tokens for the drawn texts; take another generator, or "
                "params.start normal.",
            )
        if max(needed, len(prompt) + work.tokens) > model.positions:
            raise JobError(
                "input_invalid",
                f"A text of {work.tokens} tokens with its template or instruction has "
                f"{max(needed, len(prompt) + work.tokens)}; the model has {model.positions} "
                "positions. Lower max_tokens.",
            )
        allowed = len(self._allowed)
        if int(work.params["top_k"]) > allowed:
            raise JobError(
                "input_invalid",
                f"params.top_k is {work.params['top_k']}, and the model has {allowed} tokens that "
                "are not banned; lower it.",
            )
        project = Projection(model, prompt, banned, int(work.params["top_k"]))
        self._recipe = self._recipe_of(work)
        # Kept by what it depends on: the groups of the stack and all of the request.
        store = ResumeStore(ctx, spec.model_dump_json())
        self.admm = Admm(model, self._target, self.frame, project, self._recipe, store)

    def _aim(self) -> Target:
        child: Child = next(iter(self._ctx.fan_out(TARGET_PART.name, [self._work.target])))
        with child.open("target.npz") as reader:
            target = read_target(reader)
        if not self._work.noise_target:
            return target
        # As many factors of the same lengths, in directions that say nothing.
        rng = np.random.default_rng(derived_seed(self._spec.seed, "noise"))
        n = min(_NOISE, len(target.factors))
        a = rng.normal(size=(n, self.model.outputs)).astype(np.float32)
        h = rng.normal(size=(n, self.model.width)).astype(np.float32)
        h *= np.linalg.norm(target.factors.h[:n], axis=1, keepdims=True) / math.sqrt(
            self.model.width
        )
        return Target(Factors.of(a / np.float32(math.sqrt(self.model.outputs)), h))

    def _recipe_of(self, work: Optimise) -> Recipe:
        given: dict[str, Any] = work.params
        shared = {
            "outer": given["outer_steps"],
            "inner": given["inner_steps"],
            "rho": given["rho"],
        }
        if work.reference:
            return Recipe(**shared, bias=self.model.bias is not None, **_OFFICIAL)
        # The published rate, at the size of this model's embeddings.
        unit = self._norm / math.sqrt(self.model.embeddings.shape[1])
        return Recipe(
            **shared,
            lr=given["lr"] * unit / (_OFFICIAL_NORM / math.sqrt(_OFFICIAL_WIDTH)),
            clip=given["grad_clip"],
            bias=given["bias"] == "equal" and self.model.bias is not None,
            distance=given["distance"],
            penalty=given["penalty"],
            select=given["select"],
            patience=given["patience"],
        )

    def start(self) -> torch.Tensor:
        """(S, r, L, d): for each group the best of its candidates."""
        return torch.stack([self._start_of(group) for group in self._spec.groups])

    def _start_of(self, group: int) -> torch.Tensor:
        reference = self._work.reference
        count = _OFFICIAL_CANDIDATES if reference else int(self._work.params["candidates"])
        kind = "normal" if reference else str(self._work.params["start"])
        rng = np.random.default_rng(derived_seed(self._spec.seed, "start", group))
        best, found = torch.inf, None
        together = max(1, _TRIED_TOGETHER // self._spec.group_size)
        for start in range(0, count, together):
            self._ctx.check()
            some = min(together, count - start)
            x = torch.stack([self._candidate(kind, rng) for _ in range(some)])
            # As published, a random candidate is tried at its own norm; ours as it would be used.
            if kind == "normal" and not reference:
                x = self._norm * x / x.norm(dim=-1, keepdim=True)
            with torch.no_grad():
                tried = self.admm.distances(x)
            place = int(tried.argmin())
            if float(tried[place]) < best or found is None:
                best, found = float(tried[place]), x[place]
        assert found is not None, "there is a candidate"
        return _OFFICIAL_NORM * found / found.norm(dim=-1, keepdim=True) if reference else found

    def _candidate(self, kind: str, rng: np.random.Generator) -> torch.Tensor:
        size, length = self._spec.group_size, self._work.tokens
        if kind == "normal":
            shape = (size, length, self.model.embeddings.shape[1])
            return torch.tensor(rng.normal(size=shape).astype(np.float32), device=self.model.device)
        if kind == "embedding":
            ids = rng.choice(self._allowed, size=(size, length)).tolist()
        else:
            ids = [self._of_samples(rng) for _ in range(size)]
        return self.model.embeddings[torch.tensor(ids, device=self.model.device)]

    def _of_samples(self, rng: np.random.Generator) -> list[int]:
        """Tokens of drawn texts, one after the other until they are enough."""
        ids: list[int] = []
        while len(ids) < self._work.tokens:
            ids += self._samples[int(rng.integers(len(self._samples)))]
        return ids[: self._work.tokens]
