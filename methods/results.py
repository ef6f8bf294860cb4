"""What the results of all job types have in common: figures, intervals, artifacts, provenance.

The gateway reads these classes for its API document: nothing here imports numerics.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import Field

from methods.jobtype import SpecModel

if TYPE_CHECKING:
    from methods.jobtype import JobType

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


class Figure(SpecModel):
    """A figure that any Vega-Lite renderer draws as it stands."""

    title: str = Field(description="A few words, shown above the figure.")
    caption: str = Field("", description="What the figure shows and how to read it.")
    vega_lite: dict[str, Any] = Field(description="A Vega-Lite specification with inline data.")


class Interval(SpecModel):
    """An estimate with its 95 % interval; null where it is undefined."""

    value: float | None = Field(description="The estimate itself.")
    low: float | None = Field(description="Lower end of the interval.")
    high: float | None = Field(description="Upper end of the interval.")


class ArtifactRef(SpecModel):
    """A file that the job produced; its id can be the input of another job."""

    id: str = Field(description="Id of the artifact (`art_...`).")
    name: str = Field(description="File name.")
    media_type: str = Field(description="MIME type of the content.")
    size: int = Field(description="Length in bytes.")
    sha256: str = Field(description="SHA-256 of the content, in hexadecimal.")


class Provenance(SpecModel):
    """What a result rests on: enough to compute it again."""

    method: str = Field(description="Job type and its version, as `select-subset/1`.")
    seed: int = Field(description="The seed that all randomness came from.")
    versions: dict[str, str] = Field(
        description="Versions of the packages that the numbers depend on."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="What was decided beyond the packages: defaults in force, devices, messages to "
        "judges.",
    )

    @classmethod
    def of(cls, job_type: JobType, seed: int, *packages: str, **settings: Any) -> Provenance:
        """The provenance of a result of this job type.

        Args:
            packages: distributions beside numpy and scipy that the numbers depend on.
            settings: see the field of this name.
        """
        return cls(
            method=f"{job_type.name}/{job_type.version}",
            seed=seed,
            versions={name: version(name) for name in ("numpy", "scipy", *packages)},
            settings=settings,
        )


def chart(rows: list[dict[str, Any]], **specification: Any) -> dict[str, Any]:
    """A Vega-Lite specification over rows; width follows the page."""
    return {
        "$schema": SCHEMA,
        "data": {"values": rows},
        "width": "container",
        "height": 260,
        **specification,
    }


def axis(field: str, title: str, kind: str = "quantitative", **scale: Any) -> dict[str, Any]:
    """An encoding channel with its title, and its scale where one is given."""
    encoding: dict[str, Any] = {"field": field, "type": kind, "title": title}
    return {**encoding, "scale": scale} if scale else encoding
