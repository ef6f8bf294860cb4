"""Parameters of the methods that cluster."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from methods.select_subset.schema.base import FromModel, Params


class KMeansParams(Params):
    """Parameters of k-means."""

    clusters: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Number of clusters; null: the method's default, by the number of rows.",
    )
    kmeans_niter: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Largest number of k-means steps; it ends earlier once nothing improves.",
    )
    kmeans_init: Literal["random", "kmeans++"] = Field(
        "random", description="`random` is what the papers' code does."
    )
    kmeans_max_points_per_centroid: int = Field(
        256,
        ge=1,
        description="Rows a cluster that centroids are fitted on at most: of more rows a sample "
        "is taken, and every row is then assigned exactly.",
    )


class XmasParams(KMeansParams):
    """Parameters of `xmas` (arXiv:2510.01454). `clusters` null: budget / 5, from 8 to 1000 and at
    most rows / 5."""

    needs = (frozenset({"trajectory"}), frozenset({"singular_values"}))
    from_model = FromModel({"singular_values": "singular_values"}, "all")
    top_k: int | None = Field(
        5, ge=1, description="Largest singular values used at each checkpoint; null: all."
    )
    feature: Literal["sum", "vector"] = Field(
        "sum",
        description="What of the singular values is clustered: `sum` adds up the largest of each "
        "checkpoint, as the paper does; `vector` keeps them apart. Trajectories are taken as "
        "they are.",
    )
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
    """Parameters of `s2l` (arXiv:2403.07384); its trajectories are mean losses. Officially
    it runs on one source at a time:
    `groups.balance` = `equal`. `clusters` null: budget / 5, from 8 to 100 and at most rows / 5."""

    needs = (frozenset({"trajectory"}),)
    from_model = FromModel({"trajectory": "loss"}, "all")
    kmeans_niter: int = Field(
        20,
        ge=1,
        le=10_000,
        description="Largest number of k-means steps; it ends earlier once nothing improves.",
    )
    every: int = Field(1, ge=1, description="Keep every so many-th checkpoint, from the first.")
    min_cluster: int = Field(3, ge=1, description="Rows of smaller clusters only fill up.")


class SemDedupParams(KMeansParams):
    """Parameters of `semdedup` (arXiv:2303.09540). The threshold is the one that leaves the budget.
    `clusters` null: rows / 64, from 1 to 50,000."""

    needs = (frozenset({"embedding"}),)
    from_model = FromModel({"embedding": "embedding"}, "last")
    keep_hard: bool = Field(
        True, description="Keep the duplicate farthest from the centroid, not the nearest."
    )


class PrototypesParams(KMeansParams):
    """Parameters of `prototypes` (self-supervised prototypes, arXiv:2206.14486).
    `clusters` null: rows / 64, from 1 to 1000."""

    needs = (frozenset({"embedding"}),)
    from_model = FromModel({"embedding": "embedding"}, "last")
    keep: Literal["hard", "easy"] = Field(
        "hard", description="`hard`: farthest from the nearest prototype."
    )


class CoincideParams(KMeansParams):
    """Parameters of `coincide` (arXiv:2406.10995). `clusters` null: rows / 64, from 1 to 10,000."""

    needs = (frozenset({"embedding"}),)
    from_model = FromModel({"embedding": "activations"}, "last")
    kmeans_niter: int = Field(
        50,
        ge=1,
        le=10_000,
        description="Largest number of k-means steps; it ends earlier once nothing improves.",
    )
    blocks: int = Field(
        1, ge=1, description="The embedding is so many times [image half | text half]; officially 5"
    )
    temperature: float = Field(
        0.1,
        gt=0,
        description="Temperature of the softmax that shares the budget; the lower, the more goes "
        "to few clusters.",
    )
    sigma: float = Field(1.0, gt=0, description="Width of the Gaussian kernel.")
