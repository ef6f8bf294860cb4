"""Parameters of the methods that rank rows by a score, and of those without any."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.select_subset.schema.base import FromModel, Params


class RandomParams(Params):
    """`random` and `stratified` have no parameters."""


Keep = Literal["highest", "lowest", "middle"]


class HardScoreParams(Params):
    """Parameters of `loss` and `perplexity`, which take one score a row."""

    needs = (frozenset({"score"}),)
    from_model = FromModel({"score": "loss"}, "last")
    keep: Keep = Field("highest", description="Which scores are kept; `highest` are the hard rows.")


class MiddleParams(Params):
    """Parameters of `middle_perplexity`: the middle of the ranking is kept (arXiv:2309.04564)."""

    needs = (frozenset({"score"}),)
    from_model = FromModel({"score": "loss"}, "last")


class IfdParams(Params):
    """Parameters of `ifd` (arXiv:2308.12032): how little the prompt helps with the answer."""

    needs = (frozenset({"score"}),)
    from_model = FromModel({"score": "ifd"}, "last")
    limit: float = Field(
        1.0,
        gt=0,
        description="Rows above it come last: their prompt makes the answer less likely, so that "
        "the two hardly belong together.",
    )


class ClipParams(Params):
    """Parameters of `clip_score`, the cosine of image and text; CLIP cuts texts at 77 tokens."""

    needs = (frozenset({"score"}), frozenset({"image_embedding", "text_embedding"}))
    from_model = FromModel(
        {"image_embedding": "image_embedding", "text_embedding": "text_embedding"}, "last"
    )
    keep: Keep = Field(
        "highest",
        description="Which scores are kept; `highest` are the rows whose image and text agree "
        "most.",
    )


class DynamicsParams(Params):
    """Parameters of `el2n`, which takes a score, or one a run or checkpoint to average."""

    needs = (frozenset({"score"}), frozenset({"trajectory"}))
    from_model = FromModel({"score": "el2n"}, "last")
    keep: Keep = Field("highest", description="`highest` are the hard rows.")


class AumParams(Params):
    """Parameters of `aum`: margins of the true token, high = easy, averaged over checkpoints."""

    needs = (frozenset({"score"}), frozenset({"trajectory"}))
    from_model = FromModel({"trajectory": "aum"}, "all")
    keep: Keep = Field("lowest", description="`lowest` are the hard rows, or the mislabelled.")


class ForgettingParams(Params):
    """Parameters of `forgetting`: counts (never learned = infinite), or right answers over time."""

    needs = (frozenset({"score"}), frozenset({"correctness"}))
    from_model = FromModel({"correctness": "correct"}, "all")
    keep: Keep = Field("highest", description="`highest` are the often forgotten.")


class GrandParams(Params):
    """Parameters of `grand`, which takes norms of gradients, or the gradients."""

    needs = (frozenset({"score"}), frozenset({"gradient"}))
    from_model = FromModel({"score": "gradient_norm"}, "first")
    keep: Keep = Field("highest", description="`highest` are the hard rows.")


class D2Params(Params):
    """Parameters of `d2` (D2 pruning, arXiv:2310.07931): a score such as AUM, and embeddings."""

    needs = (frozenset({"score", "embedding"}),)
    from_model = FromModel({"score": "el2n", "embedding": "embedding"}, "last")
    neighbours: int = Field(
        5,
        ge=1,
        le=1000,
        description="Nearest rows that add to a row's score, and lose score when it is picked.",
    )
    gamma: float = Field(
        0.4,
        ge=0,
        description="How fast the effect of a pick fades: neighbours at squared distance d lose "
        "exp(-gamma d) of its score.",
    )
    walk: Literal["maximum", "official"] = Field(
        "maximum",
        description="`maximum` takes the highest row each time, as the paper does; `official` is "
        "the walk of the published fast code, which takes more near-copies.",
    )
    search: Literal["auto", "exact", "cells"] = Field(
        "auto",
        description="`exact` compares all pairs; `cells` looks into the nearest of sqrt(rows) "
        "k-means cells; `auto` is exact up to 30,000 rows.",
    )
    probes: int = Field(8, ge=1, description="Cells that are looked into.")


class CcsParams(Params):
    """Parameters of `ccs` (arXiv:2210.15809)."""

    needs = (frozenset({"score"}),)
    from_model = FromModel({"score": "el2n"}, "last")
    cut: float = Field(
        0.0, ge=0, lt=1, description="Share of the hardest rows (highest scores) to drop first."
    )
    strata: int = Field(
        50,
        ge=1,
        le=100_000,
        description="Intervals of equal width that the range of scores is cut into.",
    )
    hard: Literal["highest", "lowest"] = Field(
        "highest", description="Which scores are hard; `lowest` for AUM."
    )


class InfluenceParams(Params):
    """Parameters that `less` and `icons` share."""

    needs = (frozenset({"gradient", "target_gradient"}), frozenset({"task_score"}))
    from_model = FromModel({"task_score": "influence"}, "all")
    checkpoint_weights: list[float] | None = Field(
        None,
        min_length=1,
        description="Learning rates at the checkpoints of the gradients; null: equal.",
    )


class LessParams(InfluenceParams):
    """Parameters of `less` (arXiv:2402.04333), which needs a target task."""


class IconsParams(InfluenceParams):
    """Parameters of `icons` (arXiv:2501.00654)."""

    percent: float | None = Field(
        None, gt=0, le=100, description="Top share that votes, in per cent; null: the budget's."
    )


class PreselParams(Params):
    """Parameters of `presel` (arXiv:2503.07591); its tasks are the groups."""

    needs = (frozenset({"embedding"}),)
    from_model = FromModel({"embedding": "embedding"}, "last")
    irs: dict[str, float] = Field(
        default_factory=dict,
        description="Instruction relevance of each task: mean over reference rows of "
        "loss(answer | image, question) / loss(answer | image).",
    )
    cluster_share: float = Field(0.01, gt=0, le=1, description="Clusters over rows of a task.")
    neighbours: int = Field(
        5,
        ge=1,
        description="Nearest rows of its cluster that the typicality of a row is measured on.",
    )
