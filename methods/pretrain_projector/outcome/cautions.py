"""What a reader must know before trusting a pretrain-projector result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from methods.measure_modality_gap.safety.asking import Answered
from methods.measure_modality_gap.showing.safety import about_safety
from methods.pretrain_projector.outcome.comparing import Trained
from methods.pretrain_projector.result import ProjectorRun, Result
from methods.pretrain_projector.spec import Spec
from methods.results import counted, some_of

#: Below this share of the text tokens' spread, image tokens are one vector.
COLLAPSED = 0.05
_FEW_HELD_OUT = 30
#: A rise of the caption loss that nobody would notice.
_NOTHING = 0.005


def carries(one: ProjectorRun) -> bool:
    """Whether captions are told better with their own images than with those of others."""
    low = one.information.low
    return low is not None and low > 0


def of(spec: Spec, result: Result, trained: Sequence[Trained], said: Answered | None) -> list[str]:
    """All warnings."""
    found = []
    if collapsed := [
        f"{one.name} ({one.variance_ratio:.2g})"
        for one in result.runs
        if one.variance_ratio < COLLAPSED
    ]:
        found.append(
            "Image tokens are becoming one vector, by their spread over that of the text tokens: "
            f"{some_of(collapsed)}. A small gap of such tokens means nothing."
        )
    if empty := [
        f"{one.name} ({one.caption_loss.value:.3f} and {one.caption_loss_shuffled:.3f})"
        for one in result.runs
        if not carries(one)
    ]:
        found.append(
            "Captions are told no better with their own images than with those of others: "
            f"{some_of(empty)}. These projectors carry no information, and a gain of refusals "
            "means nothing."
        )
    found += _about_comparison(spec, result)
    if said is not None:
        found += about_safety(said.found)
    cut = trained[0].made.cut
    if cut:
        found.append(f"{counted(cut, 'caption')} cut at max_tokens ({spec.max_tokens:,}).")
    if result.held_out < _FEW_HELD_OUT:
        found.append(
            f"Caption losses rest on {counted(result.held_out, 'held-out caption')}; "
            f"{_FEW_HELD_OUT} or more tell more."
        )
    return found


def _about_comparison(spec: Spec, result: Result) -> Iterator[str]:
    worse, unusual = [], []
    for one in result.comparison:
        rise = one.caption_loss_rise
        if rise.low is not None and rise.low > _NOTHING:
            worse.append(f"{one.name} (by {rise.value:.3f} nats a token)")
        gains = {gain.condition: gain.test.difference.value or 0.0 for gain in one.gains}
        made = [gains[name] for name in ("blank", "noise") if name in gains]
        if gains.get("image", 0.0) > 0 and any(gain <= 0 for gain in made):
            unusual.append(one.name)
    if worse:
        yield f"Captions got worse than the baseline's: {some_of(worse)}."
    if unusual:
        yield (
            "Refusals rise behind usual images and not behind blank or noisy ones, which stay "
            f"erratic: {some_of(unusual)}."
        )
    if not spec.baseline:
        yield "Without a baseline nothing is said of what the penalty costs or mends."
    if spec.seeds == 1:
        yield (
            "One seed only: refusals behind images differ much from seed to seed. Set seeds to 3 "
            "or more before you rely on a difference."
        )
    if spec.safety is None:
        yield "No prompts were asked, so nothing is known of refusals and no weight is chosen."
    elif spec.penalty is not None and spec.baseline and result.chosen is None:
        yield (
            "No weight is chosen: none gains refusals for a rise of the caption loss of "
            f"{spec.max_caption_loss_rise:g} or less."
        )
