"""The parts that a synthesize-text job runs as its children.

All are pure: a part with the same content is not run again, so that a second job with other filters
or another number of texts finds what the first one made, and a killed part alone is made again.
Real texts in a file are named by it and not copied into a part; those of the request itself are.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from methods.jobtype import NUMERICS, InputRef, JobType, ModelRef, SpecModel

DeviceName = Literal["cpu", "gpu"]


class Label(SpecModel):
    """A label."""

    name: str = Field(min_length=1, max_length=200, description="Name of the label in the rows.")
    word: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^\S(.*\S)?$",
        description="The word that stands for it after a text; its first token counts.",
    )


class Generator(SpecModel):
    """What draws texts."""

    model: ModelRef = Field(description="A server or weights.")
    chat: bool = Field(False, description="The instruction is a user's turn of a chat.")
    temperature: float = Field(
        1.0, gt=0, le=10, description="Randomness of the draws; above 1 is more."
    )
    top_p: float = Field(0.95, gt=0, le=1, description="Nucleus of the probability to draw from.")
    stop: list[str] = Field(
        default=["\n"], max_length=8, description="Strings that end a text and are not part of it."
    )
    send_seed: bool = Field(
        True,
        description="Send a seed with each request, so that a server that takes one draws the "
        "same again.",
    )


class FineTuning(SpecModel):
    """How a model is fine-tuned to say the label's word after a text."""

    steps: int = Field(200, ge=1, le=100_000, description="Steps of AdamW.")
    batch_size: int = Field(16, ge=1, le=1_024, description="Texts of a step.")
    lr: float = Field(
        1e-5, gt=0, le=1, description="Largest learning rate; it rises over 3 % and falls to 0."
    )


class LabelledTexts(SpecModel):
    """Real texts, and how they are split; the same in every part of a job."""

    input: InputRef | None = None
    rows: list[dict[str, Any]] | None = None
    text_field: str
    label_field: str
    labels: list[str]
    distinct: bool = Field(True, description="Texts that repeat an earlier one count once.")
    holdout: float
    max_tokens: int
    seed: int


class NoisyTarget(SpecModel):
    """How much noise the target of a label gets."""

    epsilon: float
    delta: float
    clip: float | None
    adjacency: Literal["replace-one", "zero-out-one"]
    subspace: int
    public: list[str] = Field(description="Drawn texts, whose gradients span the subspace.")


class TargetPart(SpecModel):
    """The gradient that texts of a label aim at, and how near real texts are to it."""

    model: ModelRef
    texts: LabelledTexts
    template: str
    words: list[str]
    label: int = Field(ge=0)
    bias: bool = False
    privacy: NoisyTarget | None = None
    device: DeviceName = "cpu"


class Release(SpecModel):
    """A noisy target that was published."""

    n: int = Field(description="Texts that it is the mean of; taken as public.")
    dimensions: int = Field(description="Dimensions of the subspace.")
    clip: float = Field(description="Largest norm of a text's gradient in the subspace.")
    sensitivity: float = Field(description="How far one record can move the mean.")
    sigma: float = Field(description="Standard deviation of the noise in each dimension.")
    rho: float = Field(description="Its zCDP parameter; those of several releases add up.")
    expected_cosine: float = Field(
        description="About which cosine the noisy target has to the exact one's part in the "
        "subspace, if real texts have gradients as long as drawn ones."
    )


class TargetMade(SpecModel):
    """The target is the artifact `target.npz`; distances are those of texts alone."""

    used: int = Field(description="Texts of the label that the target is the mean of.")
    available: int = Field(description="Texts of the label that could be.")
    held_out: int
    cut: int = Field(description="Texts that were cut at `max_tokens`.")
    norm: float = Field(description="Norm of the target's gradient.")
    parameters: int = Field(description="Weights of the model.")
    outputs: int = Field(description="Outputs of the model's head.")
    width: int = Field(description="Width of its last hidden state.")
    head_bias: bool = Field(description="The head has a bias.")
    mean_tokens: float | None = None
    words: list[int] | None = Field(None, description="Lengths of used texts in words.")
    held_own: list[float] | None = None
    held_other: list[float] | None = Field(
        None, description="Held-out texts of other labels, with this label's word."
    )
    held_set_distance: float | None = None
    held_log_loss: float | None = None
    release: Release | None = None
    versions: dict[str, str] = Field(description="Versions of the packages that read the model.")


class DrawsPart(SpecModel):
    """Groups of texts from a language model; each group is seeded by its number."""

    generator: Generator
    prompt: str
    max_tokens: int
    ends: Literal["sentence", "as-is"] = "sentence"
    word_counts: list[int] | None = Field(None, description="Lengths to cut to, drawn from.")
    group_size: int
    groups: list[int]
    seed: int
    resource: Literal["cpu", "gpu", "llm"]


class RandomVocabulary(SpecModel):
    """Random tokens of a model."""

    kind: Literal["random-vocabulary"] = "random-vocabulary"
    model: ModelRef
    tokens: int


class Optimise(SpecModel):
    """Texts by ADMM."""

    kind: Literal["optimise"] = "optimise"
    target: TargetPart
    noise_target: bool = Field(False, description="The control: aim at noise.")
    starts: list[str] = Field(description="Drawn texts to start from.")
    prompt: str = Field(description="What precedes the text where the model picks tokens.")
    tokens: int
    ends: Literal["sentence", "as-is"] = "sentence"
    ban: Literal["none", "official"] | list[str]
    reference: bool
    params: dict[str, Any] = Field(description="All parameters of gradmm or gradmm-reference.")


class TextsPart(SpecModel):
    """Groups of texts; each group is seeded by its number."""

    work: RandomVocabulary | Optimise = Field(discriminator="kind")
    group_size: int
    groups: list[int]
    seed: int
    device: DeviceName = "cpu"


class TextsMade(SpecModel):
    """The texts are the artifact `texts.jsonl`: `{"text", "group"}`, empty ones too; of optimised
    ones `curves.json` has figures by name, outer step and group."""

    texts: int
    cut: int = Field(description="Texts that the generator did not end.")
    forward_tokens: int


class ScoresPart(SpecModel):
    """Texts for the model to read, each with the word of its label."""

    model: ModelRef
    template: str
    words: list[str]
    texts: list[str]
    labels: list[int]
    max_tokens: int
    device: DeviceName = "cpu"


class ScoresMade(SpecModel):
    """The scores are the artifact `scores.npz`."""

    texts: int
    shortened: dict[int, str] = Field(description="Texts that were cut at `max_tokens`, by row.")
    forward_tokens: int


class FinetunePart(SpecModel):
    """Fine-tune on a set, test on held-out real texts."""

    model: ModelRef
    real: LabelledTexts
    template: str
    words: list[str]
    arm: Literal["none", "real", "texts"]
    texts: list[str] = Field(default_factory=list)
    labels: list[int] = Field(default_factory=list)
    recipe: FineTuning
    seed: int
    device: DeviceName = "cpu"

    @model_validator(mode="after")
    def _one_label_each(self) -> FinetunePart:
        if len(self.texts) != len(self.labels):
            raise ValueError("a label for each text")
        return self


class Finetuned(SpecModel):
    """`outcome.npz` has, per held-out text, its label and the probabilities of all labels."""

    trained_on: int
    tested_on: int
    losses: list[float]


_MODEL = (*NUMERICS, "torch", "transformers")

TARGET_PART = JobType(
    name="synthesize-text-target",
    version="1",
    title="The gradient of real texts of a label",
    summary="A part of synthesize-text.",
    spec=TargetPart,
    result=TargetMade,
    runner="methods.synthesize_text.gradients.target:run",
    resource_of=lambda spec: spec.device,
    requires=_MODEL,
    isolation="thread",
    internal=True,
    timeout=timedelta(hours=4),
)
DRAWS_PART = JobType(
    name="synthesize-text-draws",
    version="1",
    title="Groups of texts, drawn from a language model",
    summary="A part of synthesize-text.",
    spec=DrawsPart,
    result=TextsMade,
    runner="methods.synthesize_text.texts.drawing:run",
    resource_of=lambda spec: spec.resource,
    # A server is asked without torch; weights bring their own.
    requires=(*NUMERICS, "httpx2"),
    isolation="thread",
    internal=True,
    timeout=timedelta(hours=24),
)
TEXTS_PART = JobType(
    name="synthesize-text-texts",
    version="1",
    title="Groups of texts, optimised or random",
    summary="A part of synthesize-text.",
    spec=TextsPart,
    result=TextsMade,
    runner="methods.synthesize_text.optimisation.optimising:run",
    resource_of=lambda spec: spec.device,
    requires=_MODEL,
    isolation="thread",
    internal=True,
    timeout=timedelta(hours=24),
)
SCORES_PART = JobType(
    name="synthesize-text-scores",
    version="1",
    title="Texts read by the model that they are made for",
    summary="A part of synthesize-text.",
    spec=ScoresPart,
    result=ScoresMade,
    runner="methods.synthesize_text.gradients.scoring:run",
    resource_of=lambda spec: spec.device,
    requires=_MODEL,
    isolation="thread",
    internal=True,
    timeout=timedelta(hours=4),
)
FINETUNE_PART = JobType(
    name="synthesize-text-finetune",
    version="1",
    title="A model fine-tuned on a set of texts and tested",
    summary="A part of synthesize-text.",
    spec=FinetunePart,
    result=Finetuned,
    runner="methods.synthesize_text.outcome.finetune:run",
    resource_of=lambda spec: spec.device,
    requires=_MODEL,
    isolation="thread",
    internal=True,
    timeout=timedelta(hours=24),
)
PARTS = [TARGET_PART, DRAWS_PART, TEXTS_PART, SCORES_PART, FINETUNE_PART]
