"""The methods of `select-subset`: their parameters and the features that each needs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from methods.jobtype import Model

FeatureKind = Literal[
    "trajectory",
    "singular_values",
    "embedding",
    "image_embedding",
    "text_embedding",
    "score",
    "correctness",
    "gradient",
    "target_gradient",
    "task_score",
]

#: The kinds of one way to feed a method; a method may have several ways.
Kinds = frozenset[str]

#: For each kind of feature: which reading of a proxy model it is, and at which checkpoints.
FromModel = dict[str, tuple[str, Literal["all", "first", "last"]]]


class Params(Model):
    """Parameters of a method.

    Attributes:
        needs: the sets of feature kinds that it takes; exactly one of them has to be given.
        from_model: what a proxy model gives in their place; None where it cannot.
    """

    needs: ClassVar[tuple[Kinds, ...]] = (frozenset(),)
    from_model: ClassVar[FromModel | None] = None


class RandomParams(Params):
    """`random` and `stratified` have no parameters."""


Keep = Literal["highest", "lowest", "middle"]


class HardScoreParams(Params):
    """Of `loss` and `perplexity`: one score a row."""

    needs = (frozenset({"score"}),)
    from_model: ClassVar[FromModel | None] = {"score": ("loss", "last")}
    keep: Keep = Field("highest", description="Which scores are kept; `highest` are the hard rows.")


class MiddleParams(Params):
    """Of `middle_perplexity`: the middle of the ranking is kept (arXiv:2309.04564)."""

    needs = (frozenset({"score"}),)
    from_model: ClassVar[FromModel | None] = {"score": ("loss", "last")}


class ClipParams(Params):
    """Of `clip_score`: cosine of image and text. Long texts are cut by CLIP at 77 tokens."""

    needs = (frozenset({"score"}), frozenset({"image_embedding", "text_embedding"}))
    keep: Keep = "highest"


class DynamicsParams(Params):
    """Of `el2n`: a score, or one a run or checkpoint, which are averaged."""

    needs = (frozenset({"score"}), frozenset({"trajectory"}))
    from_model: ClassVar[FromModel | None] = {"score": ("el2n", "last")}
    keep: Keep = Field("highest", description="`highest` are the hard rows.")


class AumParams(Params):
    """Of `aum`: margins of the true token; high = easy. Per checkpoint, they are averaged."""

    needs = (frozenset({"score"}), frozenset({"trajectory"}))
    from_model: ClassVar[FromModel | None] = {"trajectory": ("aum", "all")}
    keep: Keep = Field("lowest", description="`lowest` are the hard rows, or the mislabelled.")


class ForgettingParams(Params):
    """Of `forgetting`: counts (never learned = infinite), or the right answers over time."""

    needs = (frozenset({"score"}), frozenset({"correctness"}))
    from_model: ClassVar[FromModel | None] = {"correctness": ("correct", "all")}
    keep: Keep = Field("highest", description="`highest` are the often forgotten.")


class GrandParams(Params):
    """Of `grand`: norms of gradients, or the gradients."""

    needs = (frozenset({"score"}), frozenset({"gradient"}))
    from_model: ClassVar[FromModel | None] = {"score": ("gradient_norm", "first")}
    keep: Keep = Field("highest", description="`highest` are the hard rows.")


class KMeansParams(Params):
    """Parameters of k-means."""

    clusters: int | None = Field(
        None, ge=1, le=1_000_000, description="Null: the method's default, by the number of rows."
    )
    kmeans_niter: int = Field(100, ge=1, le=10_000)
    kmeans_init: Literal["random", "kmeans++"] = Field(
        "random", description="`random` is what the papers' code does."
    )
    kmeans_max_points_per_centroid: int = Field(
        256,
        ge=1,
        description="With more rows, centroids are fitted on a sample of this many a cluster, and "
        "every row is then assigned exactly.",
    )


class XmasParams(KMeansParams):
    """Of `xmas` (arXiv:2510.01454). `clusters` null: min(1000, max(8, rows / 5))."""

    needs = (frozenset({"trajectory"}), frozenset({"singular_values"}))
    from_model: ClassVar[FromModel | None] = {"singular_values": ("singular_values", "all")}
    top_k: int | None = Field(
        5, ge=1, description="Largest singular values used at each checkpoint; null: all."
    )
    feature: Literal["sum", "vector"] = "sum"
    scale: Literal["none", "zscore"] = Field(
        "none",
        description="`none`, as in the paper, lets the early checkpoints decide, whose values are "
        "the largest.",
    )
    within: Literal["stable", "random", "centroid"] = Field(
        "stable",
        description="Which rows of a cluster: `stable` has the least total variation, the paper's "
        "rule; `random` was better in our small experiment; `centroid` is nearest to it.",
    )
    min_cluster: int = Field(3, ge=1, description="Smaller clusters are dropped.")
    fill_shortfall: bool = Field(
        True,
        description="Fill the budget with rows of dropped clusters, then others, the most stable "
        "first. The official code returns fewer rows.",
    )


class S2LParams(KMeansParams):
    """Of `s2l` (arXiv:2403.07384): trajectories are mean losses. Officially a source at a time:
    `groups.balance` = `equal`. `clusters` null: min(100, rows / 5)."""

    needs = (frozenset({"trajectory"}),)
    from_model: ClassVar[FromModel | None] = {"trajectory": ("loss", "all")}
    kmeans_niter: int = Field(20, ge=1, le=10_000)
    every: int = Field(1, ge=1, description="Keep every so many-th checkpoint, from the first.")
    min_cluster: int = Field(3, ge=1, description="Rows of smaller clusters only fill up.")


class SemDedupParams(KMeansParams):
    """Of `semdedup` (arXiv:2303.09540). The threshold is the one that leaves the budget.
    `clusters` null: rows / 64, from 1 to 50,000."""

    needs = (frozenset({"embedding"}),)
    from_model: ClassVar[FromModel | None] = {"embedding": ("embedding", "last")}
    keep_hard: bool = Field(True, description="Of duplicates, keep the far from the centroid.")


class PrototypesParams(KMeansParams):
    """Of `prototypes` (self-supervised prototypes, arXiv:2206.14486).
    `clusters` null: rows / 64, from 1 to 1000."""

    needs = (frozenset({"embedding"}),)
    from_model: ClassVar[FromModel | None] = {"embedding": ("embedding", "last")}
    keep: Literal["hard", "easy"] = Field(
        "hard", description="`hard`: farthest from the nearest prototype."
    )


class D2Params(Params):
    """Of `d2` (D2 pruning, arXiv:2310.07931): a score, e.g. AUM or CLIP score, and embeddings."""

    needs = (frozenset({"score", "embedding"}),)
    from_model: ClassVar[FromModel | None] = {
        "score": ("el2n", "last"),
        "embedding": ("embedding", "last"),
    }
    neighbours: int = Field(5, ge=1, le=1000)
    gamma: float = Field(0.4, ge=0)
    search: Literal["auto", "exact", "cells"] = Field(
        "auto",
        description="`exact` compares all pairs; `cells` looks into the nearest of sqrt(rows) "
        "k-means cells; `auto` is exact up to 30,000 rows.",
    )
    probes: int = Field(8, ge=1, description="Cells that are looked into.")


class CcsParams(Params):
    """Of `ccs` (arXiv:2210.15809)."""

    needs = (frozenset({"score"}),)
    from_model: ClassVar[FromModel | None] = {"score": ("el2n", "last")}
    cut: float = Field(
        0.0, ge=0, lt=1, description="Share of the hardest rows (highest scores) to drop first."
    )
    strata: int = Field(50, ge=1, le=100_000)
    hard: Literal["highest", "lowest"] = Field(
        "highest", description="Which scores are hard; `lowest` for AUM."
    )


class CoincideParams(KMeansParams):
    """Of `coincide` (arXiv:2406.10995). `clusters` null: rows / 64, from 1 to 10,000."""

    needs = (frozenset({"embedding"}),)
    from_model: ClassVar[FromModel | None] = {"embedding": ("activations", "last")}
    kmeans_niter: int = Field(50, ge=1, le=10_000)
    blocks: int = Field(
        1, ge=1, description="The embedding is so many times [image half | text half]; officially 5"
    )
    temperature: float = Field(0.1, gt=0)
    sigma: float = Field(1.0, gt=0, description="Of the Gaussian kernel.")


class InfluenceParams(Params):
    """Of `less` and `icons`."""

    needs = (frozenset({"gradient", "target_gradient"}), frozenset({"task_score"}))
    from_model: ClassVar[FromModel | None] = {"task_score": ("influence", "all")}
    checkpoint_weights: list[float] | None = Field(
        None,
        min_length=1,
        description="Learning rates at the checkpoints of the gradients; null: equal.",
    )


class LessParams(InfluenceParams):
    """Of `less` (arXiv:2402.04333): needs a target task."""


class IconsParams(InfluenceParams):
    """Of `icons` (arXiv:2501.00654)."""

    percent: float | None = Field(
        None, gt=0, le=100, description="Top share that votes, in per cent; null: the budget's."
    )


class PreselParams(Params):
    """Of `presel` (arXiv:2503.07591): tasks are the groups."""

    needs = (frozenset({"embedding"}),)
    from_model: ClassVar[FromModel | None] = {"embedding": ("embedding", "last")}
    irs: dict[str, float] = Field(
        default_factory=dict,
        description="Instruction relevance of each task: mean over reference rows of "
        "loss(answer | image, question) / loss(answer | image).",
    )
    cluster_share: float = Field(0.01, gt=0, le=1, description="Clusters over rows of a task.")
    neighbours: int = Field(5, ge=1)


MethodName = Literal[
    "random",
    "stratified",
    "clip_score",
    "el2n",
    "loss",
    "perplexity",
    "middle_perplexity",
    "aum",
    "forgetting",
    "grand",
    "semdedup",
    "prototypes",
    "d2",
    "ccs",
    "s2l",
    "coincide",
    "xmas",
    "less",
    "icons",
    "presel",
]

PARAMS: dict[str, type[Params]] = {
    "random": RandomParams,
    "stratified": RandomParams,
    "clip_score": ClipParams,
    "el2n": DynamicsParams,
    "loss": HardScoreParams,
    "perplexity": HardScoreParams,
    "middle_perplexity": MiddleParams,
    "aum": AumParams,
    "forgetting": ForgettingParams,
    "grand": GrandParams,
    "semdedup": SemDedupParams,
    "prototypes": PrototypesParams,
    "d2": D2Params,
    "ccs": CcsParams,
    "s2l": S2LParams,
    "coincide": CoincideParams,
    "xmas": XmasParams,
    "less": LessParams,
    "icons": IconsParams,
    "presel": PreselParams,
}

AnyParams = (
    XmasParams
    | S2LParams
    | CoincideParams
    | SemDedupParams
    | PrototypesParams
    | D2Params
    | CcsParams
    | ClipParams
    | DynamicsParams
    | HardScoreParams
    | MiddleParams
    | AumParams
    | ForgettingParams
    | GrandParams
    | LessParams
    | IconsParams
    | PreselParams
    | RandomParams
)
