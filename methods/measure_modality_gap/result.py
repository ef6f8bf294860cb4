"""The result of a measure-modality-gap job."""

from __future__ import annotations

from pydantic import Field

from methods.jobtype import SpecModel
from methods.measure_modality_gap.safety_schema import SafetyFound
from methods.measure_modality_gap.settings import GapMeasure
from methods.results import ArtifactRef, JobResult


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
    safety: SafetyFound | None = Field(None, description="What models said with images.")
    artifacts: dict[str, ArtifactRef] = Field(
        description="Files by name: layers.csv, and moments-1.npz, ... of each subject, which a "
        "later job can combine; responses.jsonl, without the prompts."
    )
