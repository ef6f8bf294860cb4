"""All that a runner sees of the world."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

from methods.children import Child
from methods.inference.model_registry import JobModels
from methods.jobtype import InputRef
from methods.results import ArtifactRef

if TYPE_CHECKING:
    import numpy as np
    from pydantic import BaseModel


@runtime_checkable
class RunContext(Protocol):
    """What the worker (or `LocalContext`) offers to `run(spec, ctx)`.

    Attributes:
        log: goes to the worker's log and, from level INFO on, to the job's events.
        workdir: an empty folder of this attempt; it is deleted afterwards.
        models: what the spec's `ModelRef`s stand for.
        rng: a generator seeded from the spec's `seed`.
        parallel: children may run elsewhere, side by side.
    """

    log: logging.Logger | logging.LoggerAdapter[logging.Logger]
    workdir: Path
    models: JobModels
    parallel: bool

    @property
    def rng(self) -> np.random.Generator: ...

    def progress(self, phase: str, current: int, total: int, unit: str = "items") -> None:
        """Report how far the job is, as often as convenient; also calls `check()`."""

    def metric(self, name: str, value: float, step: int) -> None:
        """Report a figure over time, such as a loss, as often as there is one.

        Curves of more than some thousand points are thinned. A later attempt that reports a step
        again replaces its value.
        """

    def check(self) -> None:
        """Raise an `Interrupted` when the runner has to stop. Cheap: call it in every loop."""

    def open_input(self, ref: InputRef) -> BinaryIO:
        """Open an input for reading. Raises `JobError('input_unreadable')`."""

    def save_artifact(self, name: str, source: Path | bytes, media_type: str) -> ArtifactRef:
        """Store bytes that belong to the result; a file is read from its path."""

    def save_model(self, name: str, folder: Path, base: str | None = None) -> ArtifactRef:
        """Store the model of a folder, as `save_pretrained` leaves it; any job may name it then.

        Args:
            name: of the artifact, without an ending.
            base: the model that an adapter was trained on.

        Raises:
            ValueError: the folder has no safetensors, or files that a model may not have.
        """

    def checkpoint(self, key: str, value: Any) -> None:
        """Keep a JSON value beyond this attempt; a later attempt of the job reads it back."""

    def restore(self, key: str) -> Any | None:
        """The value of an earlier `checkpoint(key, ...)`, or None."""

    def keep_file(self, key: str, path: Path) -> None:
        """Keep the bytes of a file, of any size, until the job has ended."""

    def kept_file(self, key: str) -> Path | None:
        """A file with the bytes of an earlier `keep_file(key, ...)`, or None. Only read it."""

    def partial(self, result: dict[str, Any]) -> None:
        """Show a JSON object, such as a leaderboard so far, until the result is there.

        It replaces the one before; one that is too large is not shown.
        """

    def fan_out(self, job_type: str, specs: Sequence[BaseModel]) -> Iterator[Child]:
        """Run a job type once for each spec, here and on other workers; yields them as they end.

        What was run before for this tenant with the same content, by this job or another, is not
        run again. The children are queued when this returns and claimed in the order of `specs`,
        so give the longest first.

        Raises:
            JobError: a child failed; the message names it.
        """

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What earlier jobs of the same owner remembered, as far as it is still there."""

    def remember(self, entries: Mapping[bytes, bytes]) -> None:
        """Offer later jobs what was costly; a key names the content: the value never changes."""

    def record_release(self, data_set: str, release: str, rho: float) -> None:
        """Enter a differentially private release into the ledger of the job's owner.

        Call it before anybody can see what is released; the same one counts once.

        Args:
            data_set: SHA-256 of the records that it is of. release: SHA-256 of what is released.
            rho: its zCDP parameter.
        """

    def releases(self, data_set: str | None = None) -> tuple[int, float]:
        """How many releases the job's owner made of a data set, or of all, and their summed rho."""
