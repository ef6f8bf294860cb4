"""The result of `select-subset`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from methods.jobtype import SpecModel
from methods.results import ArtifactRef, JobResult


class Clusters(SpecModel):
    """The clusters or strata that the budget was shared over."""

    k: int = Field(description="Clusters with at least one row.")
    dropped: int = Field(description="Clusters too small to count.")
    size_quantiles: list[float] = Field(description="Minimum, quartiles, maximum of their sizes.")
    quota_quantiles: list[float] = Field(description="The same of the rows taken from each.")
    inertia: float | None = Field(
        None, description="Sum of squared distances (of 1 - cosine) to the centroids."
    )
    iterations: int | None = Field(None, description="Steps of k-means.")


class GroupCount(SpecModel):
    """A group of rows before and after."""

    rows: int = Field(description="Rows of the group that could have been chosen.")
    selected: int = Field(description="Rows of the group that were chosen.")


class BadRow(SpecModel):
    """A row that cannot be used, and why."""

    row: int = Field(description="Row number in the input, from 0.")
    id: str | None = Field(None, description="Id of the row; null where it has none.")
    field: str = Field(
        description="Field or feature that is at fault; empty where the row as a whole is."
    )
    problem: str = Field(description="What is wrong, in words.")


class DuplicateRow(SpecModel):
    """A row that repeats another."""

    row: int = Field(description="Row number in the input, from 0.")
    id: str = Field(description="Id of the row.")
    of_row: int = Field(description="The row that it repeats, which repeats none itself.")
    of_id: str = Field(description="Id of that row.")
    how: Literal["exact", "text", "embedding"] = Field(
        description="`exact`: the same text and images; `text`: nearly, and alike images; "
        "`embedding`: nearly the same embedding."
    )
    similarity: float = Field(
        description="Likeness of the two: share of shingles for texts, cosine for embeddings, 1 "
        "where they are the same."
    )


class DuplicatesFound(SpecModel):
    """Rows that repeat an earlier row."""

    looked_for: list[str] = Field(description="What was compared, in words.")
    exact: int = Field(description="Rows that are the same as an earlier one.")
    near: int = Field(description="Rows that are nearly an earlier one.")
    groups: int = Field(description="Rows that others repeat.")
    largest_group: int = Field(description="Rows of the largest group, the first one included.")
    dropped: int = Field(description="Copies that were left out before the choice.")
    chosen: int = Field(
        description="Chosen rows that repeat another chosen row or the same unchosen one."
    )
    chosen_at_random: int = Field(description="The same in the random choice of that size.")
    examples: list[DuplicateRow] = Field(description="The first copies; all are in the artifact.")


class PreviewPiece(SpecModel):
    """A piece of a row as the model reads it."""

    text: str = Field(description="Its text, shortened in the middle where it is long.")
    learnt: bool = Field(description="Whether the model learns to say it.")


class PreviewRow(SpecModel):
    """A row as the model reads it."""

    row: int = Field(description="Row number in the input, from 0.")
    tokens: int = Field(description="Tokens of the row, images included.")
    pieces: list[PreviewPiece] = Field(description="Its text in pieces.")


class ProxyReport(SpecModel):
    """What became of the proxy model."""

    rows_read: int = Field(description="Rows that it was read on.")
    epochs: float | None = Field(description="Passes over the rows; null without a fine-tuning.")
    checkpoint_steps: list[int] = Field(description="Steps after which it was kept.")
    losses: list[float] = Field(
        description="Mean loss of the steps up to each checkpoint, in nats a token."
    )
    tasks: list[str] | None = Field(None, description="Target tasks, with a target.")
    preview: list[PreviewRow] = Field(
        description="The first rows as the model reads them, with what it learns to say."
    )


class ProofSet(SpecModel):
    """Trainings on one set of rows."""

    name: str = Field(description="`chosen`, `random` or `all`.")
    rows: int = Field(description="Rows that were learnt.")
    loss: float = Field(
        description="Mean loss on the rows asked about, in nats an answer token; low is good."
    )
    low: float | None = Field(description="Lower end of its 95 % interval over seeds.")
    high: float | None = Field(description="Upper end of its 95 % interval over seeds.")
    losses: list[float] = Field(description="The loss of each seed.")
    correct: float = Field(
        description="Share of rows whose answer tokens are all the likeliest ones; high is good."
    )


class ProofDifference(SpecModel):
    """Loss after random rows minus loss after the choice; above 0 the choice is better."""

    mean: float = Field(description="Mean over seeds.")
    low: float | None = Field(description="Lower end of its 95 % interval, by Student's t.")
    high: float | None = Field(description="Upper end of its 95 % interval, by Student's t.")


class SelectionProof(SpecModel):
    """What a small model learned from the choice, from random rows and from all."""

    steps: int = Field(description="Steps of every training.")
    epochs: float = Field(description="Passes over the chosen rows that these steps are.")
    asked: int = Field(description="Rows that it was asked about.")
    sets: list[ProofSet] = Field(description="The sets of rows.")
    difference: ProofDifference = Field(description="The choice against random rows, seed by seed.")
    verdict: Literal["better", "worse", "cannot be told apart", "unknown"] = Field(
        description="The choice against random rows, where the interval leaves 0 out."
    )
    device: str = Field(description="`cuda` or `cpu`.")
    seconds_per_step: float = Field(description="Median over the trainings.")
    hours_all: float = Field(description="Hours of as many passes over all candidates, here.")
    hours_chosen: float = Field(description="The same over the chosen rows.")
    hours_saved: float = Field(description="What each training on the choice saves.")


class SeedStability(SpecModel):
    """How much of the choice other seeds choose too, from the same features."""

    seeds: int = Field(description="Other seeds.")
    share: float = Field(description="Mean share of the chosen rows that they choose too.")
    least: float = Field(description="The least of these shares.")
    by_chance: float = Field(description="That of a random choice of as many rows.")


class Validation(SpecModel):
    """What the validation pass found."""

    rows: int = Field(description="Rows in the input.")
    bad_rows: int = Field(description="Rows that cannot be used.")
    text_only_rows: int = Field(description="Rows without an image, where others have one.")
    text_only_selected: int = Field(0, description="Those of them that were chosen.")
    problems: dict[str, int] = Field(description="How often each problem was found.")
    examples: list[BadRow] = Field(description="The first bad rows; all are in the artifact.")


class Result(JobResult):
    """The chosen rows and why; all lists are in output order."""

    requested: int = Field(description="Rows asked for.")
    selected: int = Field(description="Rows that were chosen.")
    shortfall: int = Field(description="Rows that could not be given: requested - selected.")
    filled: int = Field(
        description="Rows outside the method's own rule that fill the budget, at the end of its "
        "order."
    )
    candidates: int = Field(description="Rows that could have been chosen.")
    indices: list[int] | None = Field(
        description="Row numbers in the input, from 0; null above 10,000, see the artifact."
    )
    artifacts: dict[str, ArtifactRef] = Field(
        description="`indices` (npy, int64), `ids` (JSON lines), `rows` (the input's format), "
        "`scores` (a row for every candidate), `weights` (npy, float64, beside `indices`), "
        "`random_indices` (npy: the same number of rows at random), `messages` "
        "and `llava` (the choice as training code takes it), `recipe` (how to train on it with "
        "trl, LLaMA-Factory and axolotl), `bad_rows` and `duplicates` "
        "(JSON lines); "
        "with a model also `features` (npz, what the proxy gave, as a feature of further jobs), "
        "`model` (the fine-tuned proxy, which other jobs may name) and "
        "`contact_sheet` (PNG, images of some clusters, chosen ones framed)."
    )
    clusters: Clusters | None = Field(
        description="The clusters or strata that the budget was shared over; null for methods "
        "without them."
    )
    per_group: dict[str, GroupCount] | None = Field(
        description="Rows of each group before and after, by its name; null without groups."
    )
    duplicates: DuplicatesFound | None = Field(
        None, description="Rows that repeat others; null where they were not looked for."
    )
    stability: SeedStability | None = Field(
        None, description="How much depends on the seed; null above 10,000 candidates."
    )
    proof: SelectionProof | None = Field(
        None, description="What the choice teaches; null unless asked for."
    )
    proxy: ProxyReport | None = Field(None, description="The proxy model; null without one.")
    validation: Validation = Field(description="What was found when the rows were checked.")
    details: dict[str, Any] = Field(description="Numbers of the method's own.")
    input_digest: str = Field(
        description="SHA-256 over the ids, features and groups that the choice depends on."
    )
