"""A trained classifier that says whether labels of new images fit."""

from __future__ import annotations

from dataclasses import dataclass

from methods.jobtype import InputRef


@dataclass(frozen=True)
class Judge:
    """The first plain training.

    Attributes:
        weights: the file with them. model: its network. accuracy: on the test images.
    """

    weights: InputRef
    model: str
    accuracy: float
