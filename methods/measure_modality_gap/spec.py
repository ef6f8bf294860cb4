"""The job type `measure-modality-gap`: its request and its result."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from methods.jobtype import NUMERICS, InputRef, JobType, ModelRef, SpecModel
from methods.results import ArtifactRef, JobResult
from methods.row_source import RowSource

Root = Literal["exact", "official_fast", "official_accurate"]
#: Measures of the gap that a risk may be fitted to, and models compared by.
GapMeasure = Literal[
    "mir",
    "fid",
    "centroid_l2_text_scaled",
    "centroid_cosine_distance",
    "unit_centroid_l2",
    "norm_ratio",
    "energy_distance",
    "mmd2_unbiased",
    "auc",
]


class TokenStates(SpecModel):
    """States of the tokens of one modality, in files."""

    inputs: list[InputRef] = Field(
        min_length=1,
        max_length=1_000,
        description="Files (npz, npy, safetensors or parquet) with arrays of (tokens, width); the "
        "tokens of several files follow each other.",
    )
    arrays: dict[Annotated[str, Field(pattern="^[0-9]{1,4}$")], str] | None = Field(
        None,
        min_length=1,
        description="Name of the array of each layer, by the layer's number; 0 is the input of the "
        "language model. Null: the only array of each file, as layer 0.",
    )
    pair: str | None = Field(
        None,
        description="Name of the array (tokens,) with the number of the pair that each token "
        "belongs to; without it there are no intervals.",
    )


class TokenClouds(SpecModel):
    """States of both modalities. All of them are taken: they need not fit into memory."""

    image: TokenStates = Field(description="States of image tokens.")
    text: TokenStates = Field(description="States of text tokens.")

    @model_validator(mode="after")
    def _same_layers(self) -> Self:
        first, second = (set(side.arrays or {"0": ""}) for side in (self.image, self.text))
        if lacking := sorted(first ^ second, key=int):
            raise ValueError(f"layer {lacking[0]} is there for one modality only")
        return self


class ImageTextPairs(RowSource):
    """Images with texts that a model reads together."""

    text_field: str = Field("text", min_length=1, description="Field with the text.")
    image_field: str = Field(
        "image",
        min_length=1,
        description="Field with the image: its path in `images`, or a data URI.",
    )
    images: InputRef | None = Field(
        None, description="A zip archive or uncompressed tar with the images that rows name."
    )
    synthetic: Literal["blank", "noise"] | None = Field(
        None,
        description="An image made for every text in place of one that it has: `blank` is white, "
        "`noise` random pixels.",
    )


class GapSource(SpecModel):
    """What to measure: exactly one of a model, states, and moments."""

    model: ModelRef | None = Field(
        None, description="An image-text model of transformers, declared or made by a job."
    )
    representations: TokenClouds | None = Field(None, description="States that are there already.")
    moments: list[InputRef] | None = Field(
        None,
        min_length=1,
        max_length=1_000,
        description="Artifacts `moments.npz` of earlier jobs: shards of one model, in any order.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [self.model, self.representations, self.moments]
        if sum(one is not None for one in given) != 1:
            raise ValueError("give exactly one of model, representations and moments")
        return self


class GapSubject(GapSource):
    """What to measure, with its name."""

    name: str = Field(min_length=1, max_length=200, description="Name in the result.")


class RiskRecord(SpecModel):
    """A model whose unsafe rate you measured."""

    name: str = Field(min_length=1, max_length=200, description="Name of the model.")
    gap: float = Field(description="Its gap, by the measure that `risk` names.")
    unsafe_rate: float = Field(ge=0, le=1, description="Its share of unsafe responses.")
    n: int | None = Field(None, ge=1, description="Responses that the share is of.")


class RiskRequest(SpecModel):
    """Your own records of gaps and unsafe rates."""

    records: list[RiskRecord] = Field(
        min_length=2, max_length=1_000, description="Models that were measured before."
    )
    measure: GapMeasure = Field(
        "centroid_l2_text_scaled",
        description="What `gap` is in the records; of layer 0, but for `mir`.",
    )

    @field_validator("records")
    @classmethod
    def _gaps_differ(cls, value: list[RiskRecord]) -> list[RiskRecord]:
        if len({one.gap for one in value}) < 2:
            raise ValueError("all records have the same gap: nothing can be told apart by it")
        return value


class GapSettings(SpecModel):
    """How the gap of a subject is measured."""

    scale: Literal["text", "none"] = Field(
        "text",
        description="`text`: both clouds are divided by the mean norm of the text tokens, as MIR "
        "does; `none`: as they are.",
    )
    outliers: Literal["replace", "remove", "none"] = Field(
        "replace",
        description="Tokens whose norm is more than 3 standard deviations from the median norm of "
        "their modality. `replace`: by the median of each coordinate, as MIR's code does; "
        "`remove`: left out, as its paper says; `none`: kept.",
    )
    sqrt: list[Root] = Field(
        ["exact"],
        min_length=1,
        description="Square roots of the covariances' product. `exact` is always there. "
        "`official_fast` and `official_accurate` are what MIR's code gives, each in columns of its "
        "own, to compare with published values; the fast one takes no root at all.",
    )
    log: Literal["10", "e"] = Field("10", description="Logarithm of MIR: its code takes base 10.")
    bootstrap: int = Field(
        200, ge=0, le=10_000, description="Resamples of pairs for the intervals; 0: none."
    )
    permutations: int = Field(
        50, ge=0, le=10_000, description="Draws of the null in which modality means nothing."
    )

    pairs: ImageTextPairs | None = Field(
        None, description="Images with texts; a subject that is a model reads them."
    )
    n_pairs: int = Field(
        100, ge=1, le=100_000, description="Pairs that are read: the first usable ones."
    )
    on_bad_rows: Literal["refuse", "skip"] = Field(
        "refuse", description="Whether pairs that cannot be read end the job or are left out."
    )
    layers: Literal["auto", "all"] | list[Annotated[int, Field(ge=0, le=1_000)]] = Field(
        "auto",
        description="Layers of a model; 0 is the input of its language model. `auto`: all up to a "
        "width of 1,024, else 0, 1, 2, 4, 8, ... and the last.",
    )
    text: Literal["user", "after_image", "separate_pass"] = Field(
        "user",
        description="Which tokens are text. `user`: those of the pair's text, read after the "
        "image; `after_image`: all that follow the image, the template's words included, as MIR's "
        "code has it; `separate_pass`: those of the pair's text, read without the image.",
    )
    batch_tokens: int = Field(
        16_384, ge=64, le=4_194_304, description="Tokens of a batch of pairs, pads included."
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Decides all that is drawn.")
    device: Literal["cpu", "gpu"] = Field("cpu", description="Where models are run.")


class Spec(GapSettings):
    """Whose gap to measure, on what, and how."""

    subjects: list[GapSubject] = Field(
        min_length=1,
        max_length=32,
        description="Models, checkpoints or states; the first is what others are compared with.",
    )
    risk: RiskRequest | None = Field(
        None, description="Records of your own models, to say what a gap meant among them."
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        names = [one.name for one in self.subjects]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the name {twice!r} occurs twice in subjects")
        if self.pairs is None and any(one.model is not None for one in self.subjects):
            raise ValueError("a subject that is a model needs pairs to read")
        if isinstance(self.layers, list) and not self.layers:
            raise ValueError("layers is empty; name some, or say auto")
        return self


class NullBand(SpecModel):
    """The same distance where modality means nothing: labels of tokens shuffled."""

    draws: int = Field(description="How often labels were shuffled.")
    dimensions: int = Field(
        description="Width of the states in it: wider ones are projected at random."
    )
    observed: float = Field(description="The distance of the real labels in this width.")
    mean: float = Field(description="Mean distance of shuffled labels: the bias of few tokens.")
    high: float = Field(description="Their 95th percentile.")
    p: float = Field(description="Share of draws at or above the observed one, itself included.")


class GapLayer(SpecModel):
    """The gap at one layer."""

    layer: int = Field(description="0 is the input of the language model.")
    fid: float = Field(description="Fréchet distance of the clouds, exact; 0: alike.")
    mean_sq: float = Field(description="Its part of the centres: their squared distance.")
    spread: float = Field(
        description="Its part of the spreads, `tr_v + tr_t - 2 tr_sqrt`: what they do not share."
    )
    tr_v: float = Field(description="Its part of the image tokens' spread: trace of covariance.")
    tr_t: float = Field(description="Its part of the text tokens' spread: trace of covariance.")
    tr_sqrt: float = Field(
        description="Trace of the root of the covariances' product: the spread that both share; "
        "counted twice, and taken off."
    )
    fid_official_fast: float | None = Field(None, description="What MIR's fast mode gives.")
    fid_official_accurate: float | None = Field(None, description="What its accurate mode gives.")
    scale: float = Field(description="Both clouds were multiplied by this.")
    r: int = Field(description="Image tokens.")
    s: int = Field(description="Text tokens.")
    width: int = Field(description="Values of a state.")
    outliers_v: int = Field(description="Image tokens of unusual norm.")
    outliers_t: int = Field(description="Text tokens of unusual norm.")
    norm_v: float | None = Field(None, description="Mean norm of image tokens, unscaled.")
    norm_t: float | None = Field(None, description="Mean norm of text tokens, unscaled.")
    norm_ratio: float | None = Field(None, description="The one over the other; 1: alike.")
    centroid_l2: float = Field(description="Distance of the centres, unscaled.")
    centroid_l2_text_scaled: float | None = Field(
        None, description="The same over the mean norm of text tokens."
    )
    centroid_cosine_distance: float | None = Field(
        None, description="1 less the cosine of the centres, 0 to 2."
    )
    unit_centroid_l2: float | None = Field(
        None, description="Distance of the centres of states cut to length 1, 0 to 2."
    )
    mean_cosine_distance: float | None = Field(
        None, description="Mean over all couples of 1 less their cosine, 0 to 2."
    )
    mean_pairwise_sq: float = Field(description="Mean squared distance of all couples, unscaled.")
    mean_pairwise_l2: float | None = Field(None, description="Mean distance of all couples.")
    chamfer_v_to_t: float | None = Field(
        None, description="Mean distance of an image token to the nearest text token."
    )
    energy_distance: float | None = Field(
        None, description="Twice the mean distance between the clouds less those within each."
    )
    median_distance: float | None = Field(
        None, description="Median distance of all couples of both clouds: width of MMD's kernel."
    )
    mmd2_biased: float | None = Field(
        None, description="Squared maximum mean discrepancy, with each token beside itself."
    )
    mmd2_unbiased: float | None = Field(
        None, description="The same without; about 0 for clouds of one law."
    )
    auc: float | None = Field(
        None,
        description="Chance that an image token lies further along the line of the centres than a "
        "text token; 0.5: not told apart.",
    )
    compared: int | None = Field(
        None, description="Tokens of each modality, at most, that measures of couples are of."
    )
    null: NullBand | None = Field(None, description="The distance where modality means nothing.")


class Mir(SpecModel):
    """MIR: the logarithm of the summed Fréchet distances."""

    value: float | None = Field(description="The value; null where all distances are 0.")
    low: float | None = Field(None, description="Lower end of its 95 % interval.")
    high: float | None = Field(None, description="Upper end of its 95 % interval.")
    full: bool = Field(
        description="All layers of the model but 0 are in it. What is of some layers only is never "
        "compared with a value of others."
    )
    layers: list[int] = Field(description="The layers that are summed.")
    log: str = Field(description="Base of the logarithm.")
    interval: str = Field(description="How the interval was made, or why there is none.")


class GapFound(SpecModel):
    """The gap of a subject at its layers."""

    mir_exact: Mir = Field(description="MIR with the exact root.")
    mir_official_fast: float | None = Field(
        None, description="MIR as its code's fast mode has it; never in a column with the exact."
    )
    mir_official_accurate: float | None = Field(
        None, description="MIR as its code's accurate mode has it."
    )
    layers: list[GapLayer] = Field(description="The layers, ascending.")
    pairs: int | None = Field(None, description="Pairs that were read; null: not known.")


class GapOf(GapFound):
    """The gap of a subject."""

    name: str = Field(description="Its name in the request.")


class RiskPoint(SpecModel):
    """A point of the monotone curve through your records."""

    gap: float = Field(description="A gap of the records.")
    unsafe_rate: float = Field(description="The rate that the curve has there.")


class RiskPrediction(SpecModel):
    """What the curve says of a subject."""

    name: str = Field(description="The subject.")
    gap: float | None = Field(description="Its gap.")
    unsafe_rate: float | None = Field(
        description="The curve at its gap; null below five records, or where the order of the "
        "records may be chance."
    )
    rank: int | None = Field(description="Records with a smaller gap, plus 1.")
    outside: bool = Field(description="Its gap is outside the range of the records.")


class RiskFitted(SpecModel):
    """What gaps meant among your own records."""

    measure: GapMeasure = Field(description="What the gaps are.")
    n: int = Field(description="Records.")
    spearman: float | None = Field(description="Rank correlation of gap and unsafe rate, -1 to 1.")
    exact_p: float | None = Field(
        description="Share of orders of the rates whose correlation is at least as strong."
    )
    curve: list[RiskPoint] = Field(
        description="Monotone curve of least squares, by ascending gap; empty below five records."
    )
    leave_one_out_error: float | None = Field(
        description="Mean error of the curve for a record that it did not see."
    )
    baseline_error: float | None = Field(
        description="The same of the mean of the other records: a useful curve is below."
    )
    predictions: list[RiskPrediction] = Field(description="The subjects.")


class Result(JobResult):
    """How far image tokens are from text tokens. A smaller gap is no proof of safety."""

    subjects: list[GapOf] = Field(description="The subjects, in the order of the request.")
    risk: RiskFitted | None = Field(None, description="What gaps meant among your records.")
    artifacts: dict[str, ArtifactRef] = Field(
        description="Files by name: layers.csv, and moments-1.npz, ... of each subject, which a "
        "later job can combine."
    )


class GapPart(GapSettings, GapSource):
    """A subject to measure; it has no name, so that another name measures nothing again."""


class GapMade(GapFound):
    """What came of it; its moments are the artifact `moments.npz`."""

    warnings: list[str]
    versions: dict[str, str]
    sketch: list[tuple[float, float, bool]] = Field(
        description="Tokens of the lowest layer in two dimensions; true: an image token."
    )


GAP_PART = JobType(
    name="modality-gap-states",
    version="1",
    title="The gap of a model or of states",
    summary="A part of measure-modality-gap.",
    spec=GapPart,
    result=GapMade,
    runner="methods.measure_modality_gap.part:run",
    resource_of=lambda spec: spec.device,
    requires=NUMERICS,
    internal=True,
    timeout=timedelta(hours=12),
    max_timeout=timedelta(days=2),
)
JOB = JobType(
    name="measure-modality-gap",
    version="1",
    title="Distance between image and text tokens",
    summary="Measures by layer how far the states of image tokens are from those of text tokens: "
    "MIR with its exact root, its parts, other distances, intervals and a null, of models or of "
    "states that are there already.",
    spec=Spec,
    result=Result,
    runner="methods.measure_modality_gap.job:run",
    timeout=timedelta(hours=12),
    requires=(*NUMERICS, "sklearn"),
    paper="arXiv:2505.24208",
    example={
        "subjects": [
            {
                "name": "llava",
                "representations": {
                    "image": {"inputs": ["file_019a3c5e7d1f7a2b8c4d5e6f70819203"]},
                    "text": {"inputs": ["file_019a3c5e7d1f7a2b8c4d5e6f70819204"]},
                },
            }
        ]
    },
)

#: Parts are found with it.
JOBS = [JOB, GAP_PART]
