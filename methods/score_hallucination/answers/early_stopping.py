"""Draws answers in rounds, as long as a scorer's verdict on an item is open."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from statistics import NormalDist

from methods.context import RunContext
from methods.inference.completion import Prompt, Usage
from methods.inference.llm import LanguageModel
from methods.score_hallucination.answers.adapters import answers_of, options_of
from methods.score_hallucination.answers.answer_store import Drawn, draw, sampling_of
from methods.score_hallucination.answers.item_reader import Items, chunks
from methods.score_hallucination.answers.questions import asked_with
from methods.score_hallucination.result import EarlyStops
from methods.score_hallucination.schema.early_stopping import StopEarly
from methods.score_hallucination.schema.items import Answer, Item, Sampler
from methods.score_hallucination.scoring.pipeline import score
from methods.score_hallucination.spec import Spec


def wilson(share: float, n: int, level: float) -> tuple[float, float]:
    """Wilson's score interval of a share of n trials, at a level in (0, 1).

    It holds for shares of yes and no. Of all variables in [0, 1] with a given mean these have the
    greatest variance (Bhatia and Davis 2000), so it is wide enough for means of others.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def decided(confidence: float | None, n: int, rule: StopEarly) -> bool:
    """Whether n answers with this confidence say on which side of the threshold the item is.

    An undefined confidence decides nothing.
    """
    if confidence is None:
        return False
    low, high = wilson(confidence, n, rule.level)
    return not low <= rule.threshold <= high


class Rounds:
    """Answers of several rounds by the number of their item."""

    def __init__(self) -> None:
        self._rounds: list[Drawn] = []
        self.saved: EarlyStops

    def add(self, drawn: Drawn) -> None:
        """One round more."""
        self._rounds.append(drawn)

    def __getitem__(self, number: int) -> list[Answer]:
        return [answer for drawn in self._rounds if number in drawn for answer in drawn[number]]

    def refusal(self, number: int) -> str | None:
        """Why a model gave no answer to an item, or None."""
        found = [drawn.refusal(number) for drawn in self._rounds if number in drawn]
        return next((why for why in found if why is not None), None)


def draw_in_rounds(
    items: Items,
    sampler: Sampler,
    spec: Spec,
    model: LanguageModel,
    usage: Usage,
    ctx: RunContext,
) -> Rounds:
    """Draw for the items without responses until each is decided or has n answers.

    Every round is checkpointed; a later attempt decides the same and draws what is missing.

    Raises:
        JobError: see `LanguageModel.sample`, and that of the similarity's model.
    """
    rule = sampler.stop_early
    assert rule is not None, "called to stop early"
    name = rule.scorer or spec.scorers[0]
    options = replace(options_of(spec, ctx), scorers=(name,))
    sampling = sampling_of(sampler, sampler.logprobs)
    rounds, drawn, answers, early = Rounds(), 0, 0, 0
    undecided = {number for number, item in enumerate(items) if item.responses is None}
    while undecided and drawn < sampler.n:
        size = min(rule.step if drawn else rule.min_n, sampler.n - drawn)
        kept = Drawn(f"responses/{drawn}", ctx)
        wanted = replace(sampling, n=size, seed=_seed(sampler.seed, drawn))
        prompts = _prompts(items, undecided, kept, sampler.context != "none")
        draw(model, prompts, wanted, kept, usage, ("sampling", len(undecided)), ctx)
        rounds.add(kept)
        drawn, answers = drawn + size, answers + size * len(undecided)
        if drawn == sampler.n:
            break
        # What the model cannot answer needs no more rounds.
        undecided -= {number for number in undecided if kept.refusal(number) is not None}
        numbers, closed = iter(sorted(undecided)), set()
        for chunk in chunks(_so_far(items, undecided, rounds)):
            for found in score([answers_of(item) for item in chunk], options, ctx.check):
                number = next(numbers)
                if decided(found.confidences.get(name), found.n, rule):
                    closed.add(number)
        undecided, early = undecided - closed, early + len(closed)
    whole = sampler.n * items.unanswered
    rounds.saved = EarlyStops(
        scorer=name,
        n_stopped=early,
        answers_drawn=answers,
        answers_saved=whole - answers,
        share_saved=(whole - answers) / whole,
    )
    return rounds


def _prompts(
    items: Items, wanted: set[int], kept: Drawn, context: bool
) -> Iterator[tuple[int, Prompt]]:
    for number, item in enumerate(items):
        if number in wanted and number not in kept:
            yield number, asked_with(item, context)


def _so_far(items: Items, wanted: set[int], rounds: Rounds) -> Iterator[Item]:
    for number, item in enumerate(items):
        if number in wanted:
            yield item.model_copy(update={"responses": rounds[number]})


def _seed(seed: int | None, drawn: int) -> int | None:
    """Of the round after so many answers: equal seeds would draw equal answers.

    Nor may it be near the first: vLLM counts up from it for the answers of a request.
    """
    if seed is None or drawn == 0:
        return seed
    return int.from_bytes(sha256(f"{seed}/{drawn}".encode()).digest()[:4]) >> 1
