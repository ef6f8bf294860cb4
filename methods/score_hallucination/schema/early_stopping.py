"""Sequential sampling: when to stop drawing answers for an item."""

from __future__ import annotations

from pydantic import Field

from methods.jobtype import SpecModel
from methods.score_hallucination.schema.options import ScorerName

BY_LOGPROBS = (
    "wsnne",
    "semantic_entropy",
    "predictive_entropy",
    "kernel_language_entropy_full",
    "weighted_cluster_entropy",
    "monte_carlo_probability",
)
#: Scorers with a confidence that takes nothing but the samples and their log-probabilities.
BY_SAMPLES = (
    "snne",
    "discrete_semantic_entropy",
    "num_semantic_sets",
    "lexical_similarity",
    "eigv_laplacian",
    "degree_matrix",
    "eccentricity",
    "kernel_language_entropy",
    "kernel_language_entropy_matern",
    "luq",
    "luq_pair",
    "mpd_self",
    *BY_LOGPROBS,
)


class StopEarly(SpecModel):
    """Draw `min_n` answers, then `step` more at a time until the item is decided, or has n.

    An item is decided when the threshold lies outside the Wilson interval around the scorer's
    confidence, with its answers as trials.
    """

    threshold: float = Field(
        gt=0, lt=1, description="Confidence that divides consistent from suspicious."
    )
    scorer: ScorerName | None = Field(
        None,
        description="Whose confidence decides; one that needs samples only. Default: the first of "
        "the job's scorers.",
    )
    min_n: int = Field(4, ge=2, description="Answers of the first round.")
    step: int = Field(2, ge=1, description="Answers of every later round.")
    level: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="Level of the interval: a higher one stops later and errs less.",
    )

    def fault(self, first: ScorerName, logprobs: bool) -> str | None:
        """Why a scorer cannot decide, or None; `first`: of the job's scorers."""
        scorer = self.scorer or first
        if scorer not in BY_SAMPLES:
            return f"{scorer} has no confidence from the samples alone"
        if scorer in BY_LOGPROBS and not logprobs:
            return f"{scorer} needs the sampler's logprobs"
        return None
