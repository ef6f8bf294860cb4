"""Adapters of a proxy model."""

from __future__ import annotations

from pydantic import Field

from methods.jobtype import SpecModel


class Lora(SpecModel):
    """Low-rank adapters that are trained in place of all weights (arXiv:2106.09685)."""

    rank: int = Field(16, ge=1, le=1024, description="Rank of the adapters.")
    alpha: float = Field(32.0, gt=0, description="Their output is scaled by alpha / rank.")
    modules: list[str] | None = Field(
        None,
        min_length=1,
        description="Names of the linear layers that get one; null: all but the output layer.",
    )
