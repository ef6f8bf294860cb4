"""Figures of results: Vega-Lite specifications with their data inside."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from methods.jobtype import SpecModel

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"


class Figure(SpecModel):
    """A figure that any Vega-Lite renderer draws as it stands."""

    title: str
    caption: str = ""
    vega_lite: dict[str, Any] = Field(description="A Vega-Lite specification with inline data.")


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
