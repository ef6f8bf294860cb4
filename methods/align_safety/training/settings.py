"""What a training is told; the gateway reads it, so without numerics."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from methods.align_safety.overlap.spec import Directions, Side
from methods.jobtype import SpecModel
from methods.responses.schema import Think
from methods.row_source import RowSource

#: The thought that the published recipe puts before every refusal.
OFFICIAL_THINK = "I should not answer this question!"
Format = Literal["prompt-completion", "messages", "question-answer"]
#: What `reference` sets.
REFERENCE: dict[str, Any] = {
    "lora_alpha": 16,
    "use_rslora": False,
    "lora_dropout": 0.05,
    "learning_rate": [5e-5],
    "per_device_train_batch_size": 2,
    "weight_decay": 1e-4,
    "lr_scheduler_type": "cosine",
    "warmup_ratio": 0.0,
}


class RefusalRows(RowSource):
    """Rows to train on: a file or rows."""

    format: Format = Field(
        "prompt-completion",
        description="Fields of a row. `prompt-completion`: `prompt` and `completion` (also "
        "`instruction`, `input`, `output`). `messages`: `messages` (also `conversations`), turns "
        "that end with the assistant's. `question-answer`: `text` with `Question:` and `Answer:`, "
        "or `question` and `answer`.",
    )


class BenignMix(RefusalRows):
    """Harmless rows with helpful answers, mixed into the refusals."""

    ratio: float = Field(
        1.0, gt=0, le=100, description="Harmless rows for each refusal, drawn by the seed."
    )


class PromptTemplate(SpecModel):
    """How a prompt is put to the model, in training and in evaluation."""

    kind: Literal["chat", "raw"] = Field(
        "chat", description="The model's own chat template, or `prompt`."
    )
    prompt: str = Field(
        "<|User|>{prompt}<|Assistant|>",
        max_length=8_000,
        description="What stands around `{prompt}` where `kind` is raw.",
    )
    think: str | None = Field(
        None,
        max_length=2_000,
        description="A thought that is put before every refusal that has none, between the tags.",
    )
    think_tags: Think | None = Field(
        Think(), description="Tags around the thinking; null: the model does not think."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.kind == "raw" and self.prompt.count("{prompt}") != 1:
            raise ValueError("prompt must have {prompt} in it, once")
        if self.think is not None and self.think_tags is None:
            raise ValueError("think needs think_tags")
        return self

    def thought_of(self, reference: bool) -> str | None:
        """The thought before every refusal: that of the published recipe, or `think`."""
        return OFFICIAL_THINK if reference else self.think


class OverlapPenalty(SpecModel):
    """The published penalty on the overlap of B A with the weights, added to the loss."""

    side: Side = Field("column", description="Which directions it counts.")
    weighted: bool = Field(True, description="A direction counts by its singular value.")
    normalise: bool = Field(
        True, description="Divide by norms: only the share within the directions counts."
    )
    k: Directions = Field(
        16,
        description="Leading directions. The paper states neither k nor beta: 16, with 1 or 10, is "
        "what was measured here.",
    )
    beta: float = Field(1.0, gt=0, le=1e6, description="Weight of the penalty.")


class Training(SpecModel):
    """One configuration at one rate; names are those of peft and trl."""

    method: Literal["lora", "full"]
    r: int
    lora_alpha: int
    use_rslora: bool
    lora_dropout: float
    target_modules: Literal["mlp", "up", "attention+mlp"] | list[str]
    layers: Literal["all", "middle"] | tuple[int, int]
    learning_rate: float
    num_train_epochs: int
    per_device_train_batch_size: int
    weight_decay: float
    lr_scheduler_type: str
    warmup_ratio: float
    max_length: int
    overlap_penalty: OverlapPenalty | None
    reference: bool


Layers = (
    Literal["all", "middle"]
    | tuple[Annotated[int, Field(ge=0, le=10_000)], Annotated[int, Field(ge=0, le=10_000)]]
)


class TuningConfiguration(SpecModel):
    """A way to train, at one or several learning rates."""

    name: str = Field(min_length=1, max_length=100, description="Unique in the request.")
    method: Literal["lora", "full"] = Field(
        "lora", description="Adapters of low rank, or all weights."
    )
    r: int = Field(16, ge=1, le=1_024, description="Rank of the adapters.")
    lora_alpha: int = Field(
        16,
        ge=1,
        le=4_096,
        description="The update is B A times alpha / r (alpha / sqrt(r) with `use_rslora`): at a "
        "fixed alpha the rank is also a step size, so sweep `learning_rate`.",
    )
    use_rslora: bool = Field(False, description="Scale by alpha / sqrt(r).")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapters.")
    target_modules: (
        Literal["mlp", "up", "attention+mlp"]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=200)]],
            Field(min_length=1, max_length=100),
        ]
    ) = Field(
        "mlp", description="Modules with adapters: a group, or the last part of modules' names."
    )
    layers: Layers = Field(
        "all",
        description="Layers with adapters: `all`, the `middle` third, or the first and the last.",
    )
    learning_rate: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default=[5e-5, 3e-4],
        min_length=1,
        max_length=16,
        description="Largest learning rates; each is a training of its own.",
    )
    num_train_epochs: int = Field(5, ge=1, le=64, description="Epochs; each is a checkpoint.")
    per_device_train_batch_size: int = Field(2, ge=1, le=1_024, description="Rows of a step.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="AdamW's decay.")
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the rate falls."
    )
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="Share of steps in which it rises.")
    max_length: int = Field(1024, ge=8, le=1 << 20, description="Tokens of a row.")
    overlap_penalty: OverlapPenalty | None = Field(
        None, description="A penalty on the overlap with the weights; null: none."
    )
    reference: bool = Field(
        False,
        description="Train as published (arXiv:2507.17075): alpha 16, dropout 0.05, rate 5e-5, "
        "decay 1e-4, cosine, no warm-up, batch 2, and the published thought before every refusal.",
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.method == "full" and self.overlap_penalty is not None:
            raise ValueError("overlap_penalty belongs to adapters")
        if isinstance(self.layers, tuple) and self.layers[0] > self.layers[1]:
            raise ValueError("layers: the first is after the last")
        if len(set(self.learning_rate)) != len(self.learning_rate):
            raise ValueError("learning_rate: a rate occurs twice")
        if self.reference:
            for name, value in REFERENCE.items():
                if name in self.model_fields_set and getattr(self, name) != value:
                    raise ValueError(f"reference sets {name} to {value}; leave it out")
                # Not by assignment, which would validate again.
                self.__dict__[name] = value
        return self

    @property
    def scale(self) -> float | None:
        """What B A is multiplied by; None of a full fine-tuning."""
        if self.method == "full":
            return None
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)

    def at(self, rate: float) -> Training:
        """This configuration at one rate. Its name is no part of it: a renamed one is the same."""
        fields = self.model_dump(exclude={"name", "learning_rate"})
        return Training(learning_rate=rate, **fields)
