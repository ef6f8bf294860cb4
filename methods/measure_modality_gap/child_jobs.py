"""The part that a measure-modality-gap job runs as its child, once for each subject.

It is pure: another subject beside it, or another name of it, measures nothing again.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from methods.jobtype import NUMERICS, JobType
from methods.measure_modality_gap.result import GapFound
from methods.measure_modality_gap.settings import GapSettings, GapSource


class GapPart(GapSettings, GapSource):
    """A subject to measure; it has no name, so that another name measures nothing again."""


class GapMade(GapFound):
    """What came of it; its moments are the artifact `moments.npz`."""

    warnings: list[str]
    versions: dict[str, str]
    sketch: list[tuple[float, float, bool]] = Field(
        description="Tokens of the lowest layer in two dimensions; true: an image token."
    )


GAP_PART = JobType(
    name="modality-gap-states",
    version="1",
    title="The gap of a model or of states",
    summary="A part of measure-modality-gap.",
    spec=GapPart,
    result=GapMade,
    runner="methods.measure_modality_gap.part:run",
    resource_of=lambda spec: spec.device,
    requires=NUMERICS,
    internal=True,
    timeout=timedelta(hours=12),
    max_timeout=timedelta(days=2),
)
