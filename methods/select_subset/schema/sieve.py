"""Which rows of a data set are looked at twice: copies, and those that are held out."""

from __future__ import annotations

from dataclasses import dataclass

from methods.select_subset.schema.duplicates import Duplicates


@dataclass(frozen=True)
class Sieve:
    """What to leave out before anything is trained or chosen.

    Attributes:
        duplicates: how copies are looked for. held_out: share of the rows to hold out, if any.
        seed: of that draw.
    """

    duplicates: Duplicates
    held_out: float | None
    seed: int

    @property
    def drop(self) -> bool:
        """Whether copies are left out."""
        return self.duplicates.action == "drop"
