"""Options of scoring: which scorers, how alike two answers are, which of them mean the same."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from methods.jobtype import ModelRef, SpecModel

#: Kinds of similarity that ask an NLI model.
BY_NLI = ("nli", "hybrid")
Rule = Literal["strict", "loose", "either"]
Identity = Literal["verbatim", "surface", "paper"]

ScorerName = Literal[
    "snne",
    "wsnne",
    "semantic_entropy",
    "discrete_semantic_entropy",
    "predictive_entropy",
    "num_semantic_sets",
    "lexical_similarity",
    "eigv_laplacian",
    "degree_matrix",
    "eccentricity",
    "kernel_language_entropy",
    "kernel_language_entropy_matern",
    "kernel_language_entropy_full",
    "luq",
    "luq_pair",
    "mpd_self",
    "mpd_cross",
    "weighted_cluster_entropy",
    "sentence_sar",
    "snne_full",
    "snne_num",
    "monte_carlo_probability",
    "selfcheck_ngram",
    "exact_match",
    "noncontradiction",
    "entailment",
    "selfcheck_nli",
    "cosine",
    "eigenscore",
    "msp",
    "perplexity",
    "min_token_prob",
    "mean_token_entropy",
    "prob_margin",
    "cocoa_msp",
    "cocoa_ppl",
    "cocoa_mte",
    "semantic_density",
    "token_sar",
    "sar",
    "p_true",
    "verbalized_confidence",
    "llm_panel",
    "long_form_mean",
    "long_form_min",
    "groundedness",
    "context_contradiction",
    "context_gain",
    "ensemble",
]


class Similarity(SpecModel):
    """How alike two answers are, from 0 (or -1, cosines) to 1."""

    kind: Literal[
        "rouge_l",
        "exact",
        "jaccard",
        "token_f1",
        "char_ngram",
        "nli",
        "hybrid",
        "embedding",
        "precomputed",
    ] = Field(
        "rouge_l",
        description="`rouge_l`: F-measure of the longest common token subsequence; `exact`: 1 for "
        "equal answers, else 0; `jaccard`: shared tokens over all tokens; `token_f1`: F-measure of "
        "the shared tokens, in any order; `char_ngram`: cosine of the counts of character "
        "trigrams; `nli`: what a model of natural language inference says, see `variant`; "
        "`hybrid`: max(0, ROUGE-L - P(contradiction)); `embedding`: cosine of a model's sentence "
        "embeddings; `precomputed`: the items bring their matrices.",
    )
    model: ModelRef | None = Field(
        None,
        description="Model: for `nli` and `hybrid` a sequence-classification model with entailment "
        "labels, for `embedding` a sentence-transformers model or an embeddings server.",
    )
    variant: Literal["strict", "luq", "kle", "noncontradiction"] = Field(
        "strict",
        description="What kind `nli` computes, mean of both directions: `strict` P(entail); "
        "`luq` P(entail) / (P(entail) + P(contradict)); `kle` P(entail) + P(neutral)/2; "
        "`noncontradiction` 1 - P(contradict).",
    )
    condition_on_prompt: bool = Field(
        False, description="Put the prompt before the answers that the NLI model compares."
    )
    tokenizer: Literal["unicode", "paper"] = Field(
        "unicode",
        description="`unicode`: words of every script, numbers, signs; equal answers are alike "
        "whatever they are written in. `paper`: the official code's, which keeps [a-z0-9] only.",
    )
    identity: Literal["surface", "verbatim", "paper"] | None = Field(
        None,
        description="Which answers are one answer, for similarities, clusters and `exact_match`: "
        "`surface`: those that differ only in markdown, LaTeX wrappers, case (not of units such as "
        "mW and MW), spacing, quotes, forms of numbers and dates, or a full stop at the end; "
        "`verbatim`: only equal strings; `paper`: the same, as `tokenizer` paper has it. Default: "
        "`paper` with that tokenizer, else `surface`.",
    )
    symmetrize: Literal["none", "mean", "min", "max"] = Field(
        "none", description="Make a precomputed matrix symmetric before anything else."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        modelled = self.kind in (*BY_NLI, "embedding")
        if modelled and self.model is None:
            raise ValueError(f"similarity/model: kind {self.kind} needs a model")
        if not modelled and self.model is not None:
            raise ValueError(f"similarity/model: kind {self.kind} takes no model")
        if self.kind != "nli" and self.variant != "strict":
            raise ValueError(f"similarity/variant: kind {self.kind} has none")
        if self.identity == "paper" and self.tokenizer != "paper":
            self.tokenizer = "paper"
        if self.kind not in BY_NLI and self.condition_on_prompt:
            raise ValueError(f"similarity/condition_on_prompt: not for kind {self.kind}")
        return self


class Clustering(SpecModel):
    """Which answers mean the same."""

    algorithm: Literal["greedy", "components", "first_match"] = Field(
        "greedy",
        description="`greedy`: by cluster heads in order, as in the semantic-entropy papers; "
        "`components`: connected components; `first_match`: each answer joins the first head it "
        "is equivalent to.",
    )
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Answers at least this similar are equivalent; null: by `rule`, or equal "
        "answers only.",
    )
    rule: Rule | None = Field(
        None,
        description="When answers mean the same by `nli` and `hybrid`, judged by the likeliest "
        "class of a pair in both directions: `strict`: both entail; `loose`: neither "
        "contradicts, and not both are neutral; `either`: one entails. Null without a "
        "threshold: `strict`.",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.rule is not None and self.threshold is not None:
            raise ValueError("clustering: give at most one of rule and threshold")
        return self

    def resolved(self, similarity: Similarity) -> Rule | None:
        """The NLI rule that decides which answers mean the same; None: threshold or equality."""
        if similarity.kind not in BY_NLI or self.threshold is not None:
            return None
        return self.rule or "strict"


def conflict(similarity: Similarity, clustering: Clustering) -> str | None:
    """Why the two do not go together, or None."""
    if clustering.rule is not None and similarity.kind not in BY_NLI:
        return f"clustering/rule: needs an NLI model, and the similarity is {similarity.kind}"
    return None


def provenance_fields(similarity: Similarity, clustering: Clustering) -> dict[str, Any]:
    """Both for the provenance of a result, with the rule that was used."""
    return {
        "similarity": similarity.model_dump(),
        "clustering": {**clustering.model_dump(), "rule": clustering.resolved(similarity)},
    }
