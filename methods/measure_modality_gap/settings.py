"""What to measure, and how: what a request and the parts of a job have in common."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from methods.jobtype import InputRef, ModelRef, SpecModel
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
