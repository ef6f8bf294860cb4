"""The parts that a select-subset job with a model runs as its children.

Both are pure: a part with the same content is not run again, so that a second job on the same rows
with the same proxy trains nothing, and a killed shard alone is read again.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from methods.jobtype import NUMERICS, JobType, ModelRef, SpecModel
from methods.select_subset.result import PreviewRow
from methods.select_subset.schema.duplicates import Duplicates
from methods.select_subset.schema.inputs import Target, TrainingRows
from methods.select_subset.schema.proxy_model import FineTune, ProxyModel
from methods.select_subset.schema.reading_plan import ReadingWork

#: So many rows are read and learnt in the job's own process: parts have a cost too.
HERE_ROWS = 4096


class ProxyPart(SpecModel):
    """Rows to check, a proxy to fine-tune on them, shards to cut."""

    dataset: TrainingRows
    target: Target | None = None
    model: ProxyModel
    clip: bool = Field(False, description="The model is a CLIP.")
    seed: int = 0
    group_field: str | None = Field(None, description="A field without which a row is bad.")
    duplicates: Duplicates = Duplicates(action="keep")
    held_out: float | None = Field(None, description="Share of the rows to hold out, if any.")
    skip_bad: bool = Field(False, description="Leave bad rows out, instead of ending there.")


class ShardSize(SpecModel):
    """A packed shard, the artifact `shard-<place in the list>.npz`."""

    rows: int
    images: bool = Field(description="All of its rows have images; else none has.")


class ProxyParts(SpecModel):
    """What came of it; without shards where bad rows ended it."""

    rows: int
    bad_rows: int = Field(description="All are in the artifact `bad.jsonl`.")
    marks: list[int] = Field(description="Steps of the checkpoints, artifacts `weights-<place>`.")
    losses: list[float]
    epochs: float = Field(0.0, description="Passes over the rows.")
    preview: list[PreviewRow] = Field(default_factory=list)
    shards: list[ShardSize]
    blocks: int | None = Field(None, description="Layers of a COINCIDE embedding.")
    tasks: list[int] | None = Field(None, description="Task of each row of `target.npz`.")
    task_names: list[str] | None = None


class ShardPart(SpecModel):
    """A shard to read at a checkpoint."""

    proxy: ProxyPart
    work: ReadingWork
    place: int = Field(ge=0)
    shard: int = Field(ge=0)


class ShardRead(SpecModel):
    """Its readings are the artifact `reading.npz`."""

    rows: int


class ArmPart(SpecModel):
    """Rows to learn, rows to ask about, a model."""

    dataset: TrainingRows
    eval: TrainingRows | None = Field(None, description="Rows to ask about; null: of the dataset.")
    learnt: str = Field(description="Mask of the rows to learn, see `proof.marks`.")
    asked: str | None = Field(None, description="Mask of the rows to ask about; null: all.")
    model: ModelRef
    train: FineTune
    steps: int
    seed: int
    max_tokens: int
    batch_tokens: int


class ArmMeasured(SpecModel):
    """What a model that learned some rows says of others."""

    loss: float = Field(description="Mean over rows of the loss of their answers, nats a token.")
    correct: float = Field(description="Share of rows whose answer tokens are all the likeliest.")
    rows: int
    asked: int
    steps: int
    seconds: float = Field(description="Seconds that the training took.")
    device: str
    train_loss: float


#: Packages of a worker that has a model.
_REQUIRES = (*NUMERICS, "torch", "transformers", "PIL")

PROXY_PART = JobType(
    name="select-subset-proxy",
    version="1",
    title="Rows checked and a proxy fine-tuned",
    summary="A part of select-subset with a model.",
    spec=ProxyPart,
    result=ProxyParts,
    runner="methods.select_subset.proxy.shards.children:run_proxy",
    requires=_REQUIRES,
    internal=True,
    timeout=timedelta(hours=24),
)
SHARD_PART = JobType(
    name="select-subset-shard",
    version="1",
    title="A shard of rows read at a checkpoint",
    summary="A part of select-subset with a model.",
    spec=ShardPart,
    result=ShardRead,
    runner="methods.select_subset.proxy.shards.children:run_shard",
    requires=_REQUIRES,
    internal=True,
    timeout=timedelta(hours=4),
)
ARM_PART = JobType(
    name="select-subset-arm",
    version="1",
    title="A model trained on some rows and asked about others",
    summary="A part of select-subset with `prove`.",
    spec=ArmPart,
    result=ArmMeasured,
    runner="methods.select_subset.proof.arms:run_arm",
    requires=_REQUIRES,
    internal=True,
    timeout=timedelta(hours=24),
)
