"""The job type `select-subset`: its request."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from methods.jobtype import JobType, SpecModel
from methods.select_subset.child_jobs import ARM_PART, PROXY_PART, SHARD_PART
from methods.select_subset.result import Result
from methods.select_subset.schema.duplicates import Duplicates, DuplicatesOption
from methods.select_subset.schema.inputs import Features, Target, TrainingRows
from methods.select_subset.schema.methods import (
    PARAMS,
    AnyParams,
    ClipParams,
    InfluenceParams,
    MethodName,
    PreselParams,
    RandomParams,
    XmasParams,
)
from methods.select_subset.schema.prove import Prove
from methods.select_subset.schema.proxy_model import Embed, ProxyModel
from methods.select_subset.schema.sieve import Sieve


class Budget(SpecModel):
    """How much to choose: exactly one of the two."""

    fraction: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the candidate rows, text-only ones included, rounded down.",
    )
    count: int | None = Field(
        None, ge=1, le=2**53, description="Number of rows; where there are fewer, all are taken."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give exactly one of fraction and count")
        return self


class Groups(SpecModel):
    """Groups of rows, e.g. their sources."""

    field: str = Field(
        min_length=1,
        description="A field of the rows; `@source` is the source of a LLaVA row: its `task_name`, "
        "or the first folder of its image path.",
    )
    balance: Literal["none", "equal", "proportional"] = Field(
        "none",
        description="`none` only counts. Otherwise each group gets its share of the budget, "
        "`equal` (small groups whole) or `proportional`, and the method runs in each.",
    )


What = Literal[
    "indices", "ids", "rows", "scores", "weights", "messages", "llava", "recipe", "model"
]


class Output(SpecModel):
    """What to write."""

    what: list[What] = Field(
        default=["indices", "ids", "rows", "scores", "weights", "messages", "recipe"],
        description="Which artifacts to write; `indices` brings `random_indices` too, and there "
        "are `rows` only with a dataset, `messages`, `llava` and `recipe` only with one of "
        "conversations. `model`: the fine-tuned proxy, which other jobs may then "
        "name by the id of its artifact.",
    )
    order: Literal["method", "input", "shuffled"] = Field(
        "method",
        description="`method`: as the method picks; most training code shuffles by itself.",
    )
    tables: Literal["npz", "parquet"] = Field("npz", description="Format of `scores`.")


class Spec(SpecModel):
    """What to choose from, by which method, how much."""

    dataset: TrainingRows | None = Field(
        None, description="The rows to choose from; by default those of the features."
    )
    features: Features | None = Field(
        None, description="One feature or a list; each method says what it needs."
    )
    model: ProxyModel | None = Field(
        None,
        description="A proxy that is fine-tuned on the data and gives the features, in their "
        "place. It needs a dataset of conversations.",
    )
    embed: Embed | None = Field(
        None,
        description="A model that makes the feature embedding, where a method needs it and no file "
        "has it. It needs a dataset.",
    )
    target: Target | None = Field(
        None, description="What less and icons aim at, with a model; it is not trained on."
    )
    budget: Budget = Field(description="How much to choose.")
    method: MethodName = Field("xmas", description="The method that chooses.")
    params: AnyParams = Field(
        default_factory=RandomParams,
        validate_default=True,
        description="Parameters of the method; what is left out has the method's default.",
    )
    duplicates: DuplicatesOption = Field(
        default_factory=Duplicates,
        description="Rows that repeat others: `report` (the default), `drop`, `keep`, or an object "
        "with the limits too.",
    )
    keep_text_only: Literal["group", "proportional", "all", "drop"] = Field(
        "group",
        description="Rows without an image, where others have one. `group`: one more cluster, "
        "drawn at random (the XMAS rule); with other methods only those without features, with a "
        "share by size. `proportional`: drawn at random, their share by size. `all`: every one is "
        "kept. `drop`: none is a candidate.",
    )
    prove: Prove | None = Field(
        None,
        description="Train a small model on the choice, on random rows and on all, and compare "
        "them on rows that it has not seen; null: do not.",
    )
    groups: Groups | None = Field(
        None, description="Groups of rows to count, or to share the budget over; null: none."
    )
    row_order: Literal["input", "id"] = Field(
        "input",
        description="What ties, draws and first centroids follow. `input` is the official rule; "
        "with `id` the choice does not depend on the order of the file.",
    )
    on_bad_rows: Literal["error", "skip"] = Field(
        "error", description="`skip`: bad rows are listed and are no candidates."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seeds every random choice.")
    output: Output = Field(Output(), description="What to write, and in which order.")

    @field_validator("params", mode="before")
    @classmethod
    def _of_method(cls, value: Any, info: ValidationInfo) -> Any:
        kind = PARAMS.get(info.data.get("method", ""))
        if kind is None or isinstance(value, kind):
            return value
        return kind.model_validate({} if isinstance(value, RandomParams) else value)

    @property
    def sieve(self) -> Sieve:
        """What to leave out before anything is trained or chosen."""
        holds = self.prove is not None and self.prove.eval is None
        share = self.prove.held_out if self.prove is not None and holds else None
        return Sieve(self.duplicates, share, self.seed)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.prove is not None:
            self._consistent_proof(self.prove)
        if "model" in self.output.what and (self.model is None or self.model.fine_tune is None):
            raise ValueError("output.what: model needs a model that is fine-tuned")
        if self.model is not None:
            self._consistent_model()
            return self._consistent_rows()
        if self.target is not None:
            raise ValueError("a target needs a model; as a feature it is a target_gradient")
        given: list[str] = [feature.kind for feature in self.features or []]
        given += ["embedding"] if self.embed is not None else []
        if len(set(given)) != len(given):
            raise ValueError("a kind of feature is given twice")
        ways = self.params.needs
        if frozenset(given) not in ways:
            needed = " or ".join(" and ".join(sorted(way)) or "no features" for way in ways)
            got = " and ".join(sorted(given)) or "no features"
            raise ValueError(f"method {self.method} needs {needed}, not {got}")
        if self.embed is not None and self.dataset is None:
            raise ValueError("embed needs a dataset")
        if self.dataset is None and not self._own_rows():
            raise ValueError("give a dataset, or features with rows of their own")
        return self._consistent_rows()

    def _consistent_proof(self, prove: Prove) -> None:
        if self.dataset is None:
            raise ValueError("prove needs a dataset of conversations")
        if prove.model is None and (self.model is None or isinstance(self.params, ClipParams)):
            raise ValueError("prove needs a model: prove.model, or model")
        if prove.eval is None and self.duplicates.action == "keep":
            raise ValueError(
                "prove holds rows out with all that repeat them, which duplicates: keep does not "
                "look for; set duplicates to report or drop, or give prove.eval"
            )

    def _consistent_model(self) -> None:
        assert self.model is not None, "asked by the caller"
        if self.features is not None or self.embed is not None:
            raise ValueError("give exactly one of features (or embed) and model")
        if self.params.from_model is None:
            without = frozenset() in self.params.needs
            why = "needs no features" if without else "needs features that a model does not give"
            raise ValueError(f"method {self.method} {why}, leave out model")
        if self.dataset is None:
            raise ValueError("a model needs a dataset")
        if isinstance(self.params, InfluenceParams) != (self.target is not None):
            raise ValueError(f"a target belongs to less and icons, and method is {self.method}")
        if isinstance(self.params, XmasParams) and self.params.top_k is None:
            raise ValueError("params.top_k must be a number with a model")
        if isinstance(self.params, ClipParams):
            if self.model.fine_tune is not None and "fine_tune" in self.model.model_fields_set:
                raise ValueError("a CLIP is not fine-tuned, leave out model.fine_tune")
            self.model = self.model.model_copy(update={"fine_tune": None})

    def _consistent_rows(self) -> Self:
        if self.groups is not None and self.dataset is None:
            raise ValueError("groups need a dataset")
        if self.method == "stratified" and (self.groups is None or self.groups.balance == "none"):
            raise ValueError("method stratified needs groups with balance equal or proportional")
        if isinstance(self.params, PreselParams):
            if self.groups is None or self.groups.balance != "none":
                raise ValueError("method presel needs groups (the tasks) with balance none")
            if not self.params.irs:
                raise ValueError("method presel needs params.irs, the relevance of each task")
        return self

    def _own_rows(self) -> bool:
        return any(feature.kind != "target_gradient" for feature in self.features or [])


_EXAMPLE: dict[str, Any] = {
    "features": {
        "kind": "trajectory",
        "ids": ["a", "b", "c", "d", "e", "f", "g", "h"],
        "values": [
            [155.2, 71.9, 27.3],
            [154.8, 72.4, 27.1],
            [155.0, 72.1, 26.9],
            [120.5, 60.2, 30.3],
            [121.1, 61.0, 30.9],
            [119.8, 60.7, 31.2],
            [90.3, 50.5, 40.1],
            [91.2, 51.3, 39.8],
        ],
    },
    "budget": {"fraction": 0.5},
    "method": "xmas",
    "params": {"clusters": 3, "min_cluster": 1},
}

JOB = JobType(
    name="select-subset",
    version="2",
    title="Select the part of a training set worth training on",
    summary="Chooses an exact budget of rows by XMAS or one of its peers, from features that you "
    "bring or from a proxy model that the job fine-tunes, with a score and a weight for each row "
    "and the same-size random choice beside it.",
    spec=Spec,
    result=Result,
    runner="methods.select_subset.job:run",
    resource="cpu",
    timeout=timedelta(hours=2),
    isolation="process",
    paper="arXiv:2510.01454",
    example=_EXAMPLE,
)

#: Parts are found with it.
JOBS = [JOB, PROXY_PART, SHARD_PART, ARM_PART]
