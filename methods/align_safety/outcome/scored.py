"""Models with their responses, and what is chosen among them."""

from __future__ import annotations

from dataclasses import dataclass, field

from methods.align_safety.result import CheckpointScored
from methods.align_safety.training.part import Checkpoint
from methods.align_safety.training.settings import TuningConfiguration
from methods.children import Child
from methods.responses.counting.gates import judge_gates
from methods.responses.counting.rates import Response, compared, rates_of
from methods.responses.schema import Gates, Rates, Verdict


@dataclass
class Trained:
    """A checkpoint, or a variant of one, with all it said.

    Attributes:
        child: the part whose artifact it is. artifact: that artifact's name.
    """

    configuration: TuningConfiguration
    learning_rate: float
    epoch: int
    step: int
    loss: float | None
    variant: str | None
    model: str
    child: Child
    artifact: str
    responses: list[Response] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For people."""
        name = f"{self.configuration.name}, rate {self.learning_rate:g}, epoch {self.epoch}"
        return name if self.variant is None else f"{name}, {self.variant}"

    @property
    def is_adapter(self) -> bool:
        """Whether it has an adapter, and not all weights."""
        return self.configuration.method == "lora"


def trained_of(
    configuration: TuningConfiguration, rate: float, one: Checkpoint, child: Child
) -> Trained:
    """A checkpoint of a training."""
    return Trained(
        configuration=configuration,
        learning_rate=rate,
        epoch=one.epoch,
        step=one.step,
        loss=one.loss,
        variant=None,
        model=one.model.id,
        child=child,
        artifact=one.model.name,
    )


def score(one: Trained, before: list[Response], baseline: Rates, gates: Gates) -> CheckpointScored:
    """Shares, paired tests and gates of a model."""
    after = one.responses
    rates = rates_of(after)
    tests = compared(before, after)
    held, verdict = judge_gates(rates, baseline, tests.accuracy, gates)
    return CheckpointScored(
        **rates.model_dump(),
        name=one.name,
        configuration=one.configuration.name,
        learning_rate=one.learning_rate,
        scale=one.configuration.scale,
        epoch=one.epoch,
        step=one.step,
        variant=one.variant,
        train_loss=one.loss,
        mcnemar=tests,
        gates=held,
        verdict=verdict,
        model=one.model,
    )


def chosen(scored: list[CheckpointScored]) -> int | None:
    """The passing one with the highest accuracy, ties by lower over-refusal, then fewer unsafe
    responses, then earlier; None where none passes."""
    passing = [place for place, one in enumerate(scored) if one.verdict == "pass"]
    return min(passing, key=lambda place: _order(scored[place], place), default=None)


def best(scored: list[CheckpointScored]) -> int:
    """The chosen one; else, of those that hold the harmful gate, the one that holds most others,
    then by the same order, for what a variant can mend is accuracy; else the one with the fewest
    unsafe responses."""
    if (place := chosen(scored)) is not None:
        return place

    def order(place: int) -> tuple[float, ...]:
        held = scored[place].gates
        if held.harmful is not True:
            harmful = scored[place].value_of("harmful_rate")
            return (0, 1.0 if harmful is None else harmful, *_order(scored[place], place))
        count = sum(one is True for one in held.model_dump().values())
        return (-1, -count, *_order(scored[place], place))

    return min(range(len(scored)), key=order)


def _order(one: CheckpointScored, place: int) -> tuple[float, ...]:
    accuracy = one.value_of("accuracy") or 0.0
    over = one.value_of("over_refusal") or 0.0
    return (-accuracy, over, one.value_of("harmful_rate") or 0.0, place)


def overall(scored: list[CheckpointScored], place: int | None) -> Verdict:
    """The verdict of a job."""
    if place is not None:
        return "pass"
    return "incomplete" if any(one.verdict == "incomplete" for one in scored) else "fail"
