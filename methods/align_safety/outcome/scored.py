"""Models with their responses, and what is chosen among them."""

from __future__ import annotations

from dataclasses import dataclass, field

from methods.align_safety.result import CheckpointScored, PairedTests
from methods.align_safety.training.part import Checkpoint
from methods.align_safety.training.settings import TuningConfiguration
from methods.children import Child
from methods.responses.gates import judge_gates, pareto_front
from methods.responses.rates import Response, paired, rates_of, refused, right, unsafe
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
    accuracy = paired(right(before), right(after))
    held, verdict = judge_gates(rates, baseline, accuracy, gates)
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
        mcnemar=PairedTests(
            accuracy=accuracy,
            harmful=paired(unsafe(before), unsafe(after)),
            over_refusal=paired(refused(before, "benign"), refused(after, "benign")),
        ),
        gates=held,
        verdict=verdict,
        model=one.model,
    )


def value_of(one: CheckpointScored, name: str) -> float | None:
    """The value of a share; None where it is unknown."""
    found = getattr(one, name)
    return None if found is None else found.value


def front(scored: list[CheckpointScored]) -> list[int]:
    """Places on the Pareto front; none where a share of one is unknown."""
    points = []
    for one in scored:
        values = [value_of(one, name) for name in ("harmful_rate", "accuracy", "over_refusal")]
        known = [value for value in values if value is not None]
        if len(known) < len(values):
            return []
        points.append(known)
    if not points:
        return []
    harmful, accuracy, over = zip(*points, strict=True)
    return pareto_front([1 - value for value in harmful], accuracy, over)


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
            harmful = value_of(scored[place], "harmful_rate")
            return (0, 1.0 if harmful is None else harmful, *_order(scored[place], place))
        count = sum(one is True for one in held.model_dump().values())
        return (-1, -count, *_order(scored[place], place))

    return min(range(len(scored)), key=order)


def _order(one: CheckpointScored, place: int) -> tuple[float, ...]:
    accuracy = value_of(one, "accuracy") or 0.0
    over = value_of(one, "over_refusal") or 0.0
    return (-accuracy, over, value_of(one, "harmful_rate") or 0.0, place)


def overall(scored: list[CheckpointScored], place: int | None) -> Verdict:
    """The verdict of a job."""
    if place is not None:
        return "pass"
    return "incomplete" if any(one.verdict == "incomplete" for one in scored) else "fail"
