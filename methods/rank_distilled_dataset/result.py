"""The answer of `rank-distilled-dataset`."""

from __future__ import annotations

from pydantic import Field

from methods.jobtype import SpecModel
from methods.rank_distilled_dataset.train_settings import EngineName
from methods.results import ArtifactRef, Interval, JobResult


class RunEstimate(Interval):
    """A score over the runs: its mean with Student's 95 % interval; no interval with one run."""

    mean: float = Field(description="The same as `value`.")
    sd: float = Field(description="Standard deviation with R in the denominator, as published.")
    sd_sample: float | None = Field(
        description="Standard deviation with R - 1 in the denominator; null with one run."
    )
    ci95: tuple[float, float] | None = Field(description="The same as `low` and `high`.")
    runs: list[float] = Field(description="The value of each run.")


class Row(SpecModel):
    """A candidate in the leaderboard of one model. Accuracies are fractions."""

    rank: int = Field(description="1 is best; equal scores share a rank.")
    name: str = Field(description="Name of the candidate.")
    score: float = Field(description="The mean that ranks.")
    lrs: RunEstimate | None = Field(description="Label-robust score, 0 to 1; high is good.")
    lrs_of_means: float | None = Field(description="The score of the mean accuracies.")
    hlr: RunEstimate | None = Field(description="Full data minus hard-label accuracy; low is good.")
    ior: RunEstimate | None = Field(description="Own minus random accuracy; high is good.")
    ior_draw95: tuple[float, float] | None = Field(
        description="95% interval of IOR that counts the candidate as one draw: it covers 0 when "
        "the candidate could be one more random subset."
    )
    ars: RunEstimate | None = Field(description="Augmentation-robust score, 0 to 1; high is good.")
    gain_augmented: RunEstimate | None = Field(
        description="Own minus random accuracy with the candidate's augmentation; high is good. "
        "Null without the metric `ars`."
    )
    gain_bare: RunEstimate | None = Field(
        description="Own minus random accuracy without augmentation; high is good. Null without "
        "the metric `ars`."
    )
    accuracy: RunEstimate = Field(description="Accuracy in the candidate's own setting.")
    accuracy_hard: RunEstimate | None = Field(
        description="Accuracy with hard labels; null where the candidate's own labels are hard."
    )
    accuracy_random: RunEstimate | None = Field(
        description="Accuracy of random subsets in the candidate's setting; null where only "
        "`accuracy` was asked for."
    )
    behind: RunEstimate | None = Field(
        description="The score of rank 1 minus this one, run by run; its interval covers 0 when "
        "the two cannot be told apart. Null for the first row."
    )
    p_first: float | None = Field(
        description="Probability of the highest mean score of all, given the runs; null: one run."
    )
    lr: float = Field(description="The learning rate of `accuracy`; of most runs if they differ.")
    lr_random: float | None = Field(
        description="Learning rate of the random subsets, that of most runs; null without them."
    )
    accuracy_by_lr: dict[str, float] = Field(description="Mean over the runs, by learning rate.")
    labels: str = Field(description="Kind of the candidate's labels: `hard`, `soft_S` or `soft_M`.")
    image_bytes: int = Field(description="Bytes of the images as an array, as handed in.")
    label_bytes: int = Field(description="Stored soft labels; 0 for hard ones and teachers.")
    comparable: str = Field(
        description="Scores may be compared where this is equal: same data, model, protocol and "
        "full-data baseline."
    )


class Leaderboard(SpecModel):
    """The candidates of one model, best first."""

    model: str = Field(description="Name of the network.")
    rows: list[Row] = Field(description="The candidates, best first.")
    full: RunEstimate | None = Field(description="Accuracy of the real training set.")
    full_given: bool = Field(description="It came with the request and was not measured.")
    win: list[list[float]] | None = Field(
        description="Probability that a row's score is above a column's, in the order of `rows`; "
        "from Student's posterior of the paired differences. Null with one run."
    )


class DatasetSummary(SpecModel):
    """What the candidates were compared with."""

    name: str = Field(description="Name of the data set.")
    digest: str = Field(
        description="SHA-256 over the images, as networks see them, and their labels."
    )
    classes: list[str] = Field(
        description="Names of the classes in the order of the labels, 0 first."
    )
    shape: tuple[int, int, int] = Field(description="Channels, height, width.")
    train: int = Field(description="Training images without those held out.")
    held_out: int = Field(description="Training images kept for choosing learning rates.")
    test: int = Field(description="Test images.")
    mean: list[float] = Field(
        description="Mean of each channel that was subtracted; images are from 0 to 1."
    )
    std: list[float] = Field(
        description="Standard deviation of each channel that images were divided by."
    )


class TrainingWork(SpecModel):
    """Where the trainings came from."""

    trained: int = Field(description="Trainings that were run for this job.")
    restored: int = Field(description="Trainings that another job had done, before or meanwhile.")
    shared: int = Field(description="Used more than once in this job and trained once.")
    seconds: float = Field(description="Processor seconds of all trainings, whoever ran them.")
    seconds_saved: float = Field(
        description="Processor seconds of the trainings that were restored or shared."
    )
    baseline_seconds: float = Field(
        description="Processor seconds of full-data, teacher and random-subset runs."
    )
    candidate_seconds: dict[str, float] = Field(
        description="Processor seconds of each candidate's own trainings, by name."
    )
    engines: dict[EngineName, int] = Field(description="Number of trainings by engine.")


class Result(JobResult):
    """Leaderboards with intervals, and everything they rest on."""

    leaderboards: list[Leaderboard] = Field(description="One a model.")
    overall: list[str] | None = Field(
        description="Candidates by mean score over the models; null with one model."
    )
    ranked_by: str = Field(description="The metric that ranks: the first of the request.")
    protocol: str = Field(description="The protocol, as requested.")
    dataset: DatasetSummary = Field(description="The real data set as it was used.")
    teachers: dict[str, float] = Field(description="Test accuracy by model.")
    work: TrainingWork = Field(description="What was trained, and what was not trained again.")
    artifacts: dict[str, ArtifactRef] = Field(
        description="`leaderboard` (CSV, one line a candidate and run), `curves` (JSON lines, one "
        "a training), `grid/` with the name of each candidate (PNG, its first images)."
    )
