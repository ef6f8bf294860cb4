"""The job type `synthesize-text`: its request."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from methods.jobtype import JobType, ModelRef, SpecModel
from methods.row_source import RowSource
from methods.synthesize_text.child_jobs import PARTS, FineTuning, Generator, Label, LabelledTexts
from methods.synthesize_text.result import Result
from methods.synthesize_text.texts.template import Template

MAX_SEED = 2**31 - 1


class Params(SpecModel):
    """Base of the parameters of a method."""


class LmSampleParams(Params):
    """`lm-sample` has none: texts that pass the filters are kept as they come."""


class LmSelectParams(Params):
    """Parameters of `lm-select`."""

    over_sample: int = Field(8, ge=1, le=64, description="Texts drawn for each one that is kept.")
    selector: list[Literal["classifier", "gradient-herding"]] = Field(
        default=["classifier", "gradient-herding"],
        max_length=2,
        description="`classifier`: only texts that the model itself gives their label. "
        "`gradient-herding`: of these the ones whose mean gradient comes nearest to the target; "
        "without it the first ones drawn that pass the filters.",
    )
    objective: Literal["set", "each"] = Field(
        "set",
        description="What gradient-herding makes small: the distance of the kept `set`, or that "
        "of `each` text alone.",
    )


class _Admm(Params):
    outer_steps: int = Field(10, ge=1, le=1_000, description="Projections to tokens.")
    inner_steps: int = Field(50, ge=1, le=10_000, description="Adam steps after each projection.")
    rho: float = Field(0.5, gt=0, le=1e6, description="Weight of the penalty that ties to tokens.")
    top_k: int = Field(
        200, ge=1, le=2**24, description="Nearest tokens of which the model picks the likeliest."
    )
    group_size: int = Field(
        10, ge=1, le=256, description="Texts whose mean gradient is matched together."
    )
    max_core_hours: float | None = Field(
        None,
        gt=0,
        le=1e5,
        description="Hours of one core that the optimisation may take. A model of over 50 million "
        "weights is refused on a CPU, with an estimate, unless this allows it.",
    )


class GradmmParams(_Admm):
    """Parameters of `gradmm`."""

    lr: float = Field(
        0.008,
        gt=0,
        le=10,
        description="Adam's learning rate at Phi-1.5's embeddings; it is scaled to the size of "
        "the model's own.",
    )
    grad_clip: float | None = Field(
        1.0, gt=0, description="Largest norm of a group's gradient; null: no limit."
    )
    distance: Literal["cos", "l2"] = Field(
        "cos", description="`cos`: 1 - cosine of the gradients; `l2`: their squared difference."
    )
    penalty: Literal["mean", "sum"] = Field(
        "mean", description="Penalty over the entries of a group: their `mean`, or `sum`."
    )
    bias: Literal["ignore", "equal"] = Field(
        "ignore", description="`equal`: a bias of the head counts as much as its weight."
    )
    start: Literal["sample", "normal", "embedding"] = Field(
        "sample",
        description="Where the optimisation starts: at the tokens of drawn texts, at random "
        "directions, or at random tokens. Never at real texts.",
    )
    candidates: int = Field(
        50, ge=1, le=1_000, description="Starts that are tried; the nearest to the target is taken."
    )
    select: Literal["tokens", "penalised"] = Field(
        "tokens",
        description="Which step is kept: `tokens`, the one whose tokens are nearest to the "
        "target; `penalised`, the one of least objective, nearly always the first.",
    )
    patience: int | None = Field(
        3, ge=1, description="Stop when no group has improved for so many outer steps."
    )


class ReferenceParams(_Admm):
    """Parameters of `gradmm-reference`; all others are those of the published code."""

    outer_steps: int = Field(30, ge=1, le=1_000, description="Projections to tokens.")


AnyParams = LmSelectParams | GradmmParams | ReferenceParams | LmSampleParams
MethodName = Literal["lm-sample", "lm-select", "gradmm", "gradmm-reference"]
PARAMS: dict[str, type[Params]] = {
    "lm-sample": LmSampleParams,
    "lm-select": LmSelectParams,
    "gradmm": GradmmParams,
    "gradmm-reference": ReferenceParams,
}


class Texts(RowSource):
    """The real texts with their labels."""

    text_field: str = Field("text", min_length=1, description="Field with the text.")
    label_field: str = Field(
        "label", min_length=1, description="Field with the label: the name of one of `labels`."
    )


class Filter(SpecModel):
    """Which texts are not kept."""

    classifier: bool = Field(
        True,
        description="Drop texts that the model itself gives another label, by its probabilities of "
        "the label words less its leaning to one of them over all texts.",
    )
    max_log_loss: float | None = Field(
        None,
        gt=0,
        description="Drop texts whose tokens have a larger mean negative log-likelihood under "
        "`model`, in nats; null: none.",
    )
    balance: bool = Field(
        True,
        description="Where texts are kept for their own distance (gradmm, and lm-select with "
        "objective each): drop the farthest until no label's mean distance exceeds the smallest; "
        "at most half of a label, and never below `per_label`.",
    )
    dedupe: bool = Field(True, description="Drop texts that repeat an earlier one.")


Arm = Literal["real", "unselected", "random-vocabulary"]


class Evaluate(FineTuning):
    """Fine-tune `model` on each set and test it on real texts that were held out."""

    seeds: int = Field(3, ge=3, le=20, description="Fine-tunings of each arm.")
    arms: list[Arm] = Field(
        default=["real", "unselected", "random-vocabulary"],
        description="Sets beside the kept texts. An untrained model is always one more.",
    )


class Privacy(SpecModel):
    """Differential privacy of the target (experimental)."""

    epsilon: float = Field(gt=0, le=1_000, description="Epsilon of one release, for each label.")
    delta: float = Field(gt=0, lt=0.1, description="Delta of one release; well below 1 / texts.")
    clip: float | None = Field(
        None,
        gt=0,
        description="Largest norm of a text's gradient, in the public subspace; null: the median "
        "norm of the drawn texts' gradients, which is public.",
    )
    adjacency: Literal["replace-one", "zero-out-one"] = Field(
        "replace-one",
        description="What one person may change: his text into any other, or into nothing while "
        "the number of texts is public.",
    )
    subspace: int = Field(
        32, ge=1, le=1_024, description="Dimensions, spanned by gradients of drawn texts."
    )


class Spec(SpecModel):
    """Which texts to make, after which real ones, and how to judge them."""

    model: ModelRef = Field(
        description="Weights of a causal language model: gradients are matched in it, texts "
        "scored by it, and it is what is fine-tuned."
    )
    generator: Generator | None = Field(
        None, description="What draws the texts, a server or weights; null: `model`."
    )
    texts: Texts = Field(description="The real texts.")
    labels: list[Label] = Field(
        min_length=2, max_length=32, description="The labels and the word that stands for each."
    )
    template: str = Field(
        "{text} It was {word}",
        max_length=2_000,
        description="How a text and the word of its label are put together; it ends in the word.",
    )
    instruction: str = Field(
        "A film review. The sentiment is {word}. Review:",
        min_length=1,
        max_length=8_000,
        description="What the generator is asked, with the label's word in place of `{word}`.",
    )
    per_label: int = Field(50, ge=1, le=5_000, description="Texts to keep for each label.")
    max_tokens: int = Field(48, ge=4, le=4_096, description="Tokens of a text; more are cut.")
    lengths: Literal["sample", "fixed", "as-real"] = Field(
        "sample",
        description="How long texts are. `sample`: as the generator ends them; one that was cut "
        "at `max_tokens` ends after its last whole sentence. `fixed`: all of `max_tokens`, or "
        "less where the generator ends. `as-real`: as long as real ones, which discloses that. "
        "gradmm: the median of drawn texts, `max_tokens`, or the mean of real ones, and but for "
        "`fixed` to the last whole sentence.",
    )
    method: MethodName = Field(
        "lm-select",
        description="`lm-sample`: the first texts that a language model draws for a label and that "
        "pass the filters. `lm-select`: the best of many such. `gradmm`: tokens optimised towards "
        "the gradient of the real texts (arXiv:2502.17607), with its defects mended. "
        "`gradmm-reference`: as published.",
    )
    params: AnyParams = Field(
        default_factory=LmSampleParams,
        validate_default=True,
        description="Parameters of the method; what is left out has the method's default.",
    )
    ban: Literal["none", "official"] | list[str] = Field(
        "none",
        description="Tokens that gradmm never writes: those with one of these strings in them; "
        "`official`: all but words of letters, as the published code has it.",
    )
    filter: Filter = Field(Filter(), description="Rules by which texts are dropped.")
    holdout: float = Field(
        0.5,
        ge=0,
        le=0.9,
        description="Share of the real texts of each label that nothing is aimed at: for controls "
        "and evaluation. With `privacy` all are used and none is held out.",
    )
    min_contrast: float | None = Field(
        None,
        gt=0,
        description="End the job before anything is drawn if a label's contrast is below this; "
        "null: only warn.",
    )
    evaluate: Evaluate | None = Field(
        None, description="Fine-tune on each set and compare on held-out texts; null: do not."
    )
    privacy: Privacy | None = Field(
        None, description="Aim at a noisy target with a stated privacy; null: at the exact one."
    )
    keep_target: bool = Field(
        False,
        description="Save the target's factors as an artifact. They are computed from real texts "
        "and can tell of them.",
    )
    device: Literal["cpu", "gpu"] = Field("cpu", description="Where `model` is run.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seeds every random choice but privacy's.")

    @field_validator("template")
    @classmethod
    def _template_is_whole(cls, value: str) -> str:
        Template.parse(value)
        return value

    @field_validator("instruction")
    @classmethod
    def _instruction_names_the_label(cls, value: str) -> str:
        if "{word}" not in value:
            raise ValueError("must contain {word}")
        return value

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: list[Label]) -> list[Label]:
        for field in ("name", "word"):
            names = [getattr(label, field) for label in value]
            if len(set(names)) != len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise ValueError(f"the {field} {twice!r} occurs twice")
        return value

    @field_validator("params", mode="before")
    @classmethod
    def _of_method(cls, value: Any, info: ValidationInfo) -> Any:
        kind = PARAMS.get(info.data.get("method", ""))
        if kind is None or isinstance(value, kind):
            return value
        return kind.model_validate({} if isinstance(value, LmSampleParams) else value)

    @field_validator("min_contrast")
    @classmethod
    def _contrast_has_texts(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("holdout") == 0:
            raise ValueError("a contrast needs held-out texts, raise holdout")
        return value

    @field_validator("evaluate")
    @classmethod
    def _evaluation_has_texts(cls, value: Evaluate | None, info: ValidationInfo) -> Evaluate | None:
        if value is not None and info.data.get("holdout") == 0:
            raise ValueError("an evaluation needs held-out texts, raise holdout")
        return value

    @field_validator("privacy")
    @classmethod
    def _privacy_touches_no_real_text(
        cls, value: Privacy | None, info: ValidationInfo
    ) -> Privacy | None:
        if value is None:
            return None
        if info.data.get("evaluate") is not None:
            raise ValueError("evaluate reads real texts, leave it out with privacy")
        if info.data.get("lengths") == "as-real":
            raise ValueError("lengths as-real disclose real texts, take sample or fixed")
        if info.data.get("min_contrast") is not None:
            raise ValueError("min_contrast reads real texts, leave it out with privacy")
        params = info.data.get("params")
        selects = isinstance(params, LmSelectParams) and "gradient-herding" not in params.selector
        if isinstance(params, LmSampleParams) or selects:
            raise ValueError("nothing aims at the target, so there is nothing to protect")
        return value

    def labelled(self) -> LabelledTexts:
        """The real texts with all that says how they are read and split."""
        fields, rows = {self.texts.text_field, self.texts.label_field}, self.texts.rows or []
        return LabelledTexts(
            input=self.texts.input,
            rows=self.texts.rows
            and [{k: v for k, v in row.items() if k in fields} for row in rows],
            text_field=self.texts.text_field,
            label_field=self.texts.label_field,
            labels=[label.name for label in self.labels],
            # To leave out a text because of another one would let one record move two.
            distinct=self.privacy is None,
            holdout=0.0 if self.privacy is not None else self.holdout,
            max_tokens=self.max_tokens,
            seed=self.seed,
        )


_EXAMPLE: dict[str, Any] = {
    "model": "phi",
    "texts": {"input": "file_019a3c5e7d1f7a2b8c4d5e6f70819203"},
    "labels": [{"name": "negative", "word": "bad"}, {"name": "positive", "word": "great"}],
    "template": "{text} It was {word}",
    "instruction": "A film review. The sentiment is {word}. Review:",
    "per_label": 50,
}

JOB = JobType(
    name="synthesize-text",
    version="1",
    title="Make labelled texts that train like the real ones",
    summary="Draws, chooses or optimises readable texts for each label whose gradient in a model "
    "points where that of the real texts points, and reports them beside honest controls: "
    "unselected and random texts, copying against a held-out half, and fine-tuning on each set.",
    spec=Spec,
    result=Result,
    runner="methods.synthesize_text.job:run",
    resource="cpu",
    timeout=timedelta(hours=12),
    max_timeout=timedelta(days=7),
    isolation="process",
    paper="arXiv:2502.17607",
    example=_EXAMPLE,
)

#: Parts are found with it.
JOBS = [JOB, *PARTS]
