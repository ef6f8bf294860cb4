"""What every method of `select-subset` declares: parameters and the features that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from methods.jobtype import SpecModel
from methods.select_subset.schema.reading_plan import ReadingName

FeatureKind = Literal[
    "trajectory",
    "singular_values",
    "embedding",
    "image_embedding",
    "text_embedding",
    "score",
    "correctness",
    "gradient",
    "target_gradient",
    "task_score",
]

#: The kinds of one way to feed a method; a method may have several ways.
Kinds = frozenset[str]


@dataclass(frozen=True)
class FromModel:
    """What a model gives in place of features.

    Attributes:
        readings: for each kind of feature the reading that it is. when: at which checkpoints.
    """

    readings: dict[FeatureKind, ReadingName]
    when: Literal["all", "first", "last"]


class Params(SpecModel):
    """Parameters of a method.

    Attributes:
        needs: the sets of feature kinds that it takes; exactly one of them has to be given.
        from_model: what a model gives in their place; None where it cannot.
    """

    needs: ClassVar[tuple[Kinds, ...]] = (frozenset(),)
    from_model: ClassVar[FromModel | None] = None
