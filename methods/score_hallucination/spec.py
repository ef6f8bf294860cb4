"""The job type `score-hallucination`: its request, its result."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from methods.figures import Figure
from methods.jobtype import InputRef, JobType, Model, ModelRef

MAX_ANSWERS = 100
MAX_CHARACTERS = 32_768
MAX_ALTERNATIVES = 100

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
    "luq",
    "luq_pair",
    "mpd_self",
    "weighted_cluster_entropy",
    "sentence_sar",
    "snne_full",
    "snne_num",
    "monte_carlo_probability",
    "selfcheck_ngram",
    "exact_match",
    "msp",
    "perplexity",
    "min_token_prob",
    "mean_token_entropy",
    "prob_margin",
    "cocoa_msp",
    "cocoa_ppl",
    "cocoa_mte",
    "semantic_density",
]
Text = Annotated[str, StringConstraints(max_length=MAX_CHARACTERS)]
# A little above zero is rounding; more is no logarithm of a probability.
LogProb = Annotated[float, Field(ge=-1e6, le=1e-3)]
SimilarityValue = Annotated[float, Field(ge=-1.0 - 1e-6, le=1.0 + 1e-6)]


class Answer(Model):
    """One answer of the model."""

    text: Text
    token_logprobs: list[LogProb] | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="Natural log-probability of each generated token; without it the white-box "
        "scorers are undefined for the item, never zero.",
    )
    top_logprobs: list[Annotated[list[LogProb], Field(max_length=MAX_ALTERNATIVES)]] | None = Field(
        None,
        max_length=MAX_CHARACTERS,
        description="For each token the log-probabilities of the likeliest ones at its place; only "
        "those of `answer` are used, by `mean_token_entropy`, `prob_margin` and `cocoa_mte`.",
    )


class Item(Model):
    """One question with its sampled answers."""

    id: str | None = Field(None, max_length=256, description="Default: the row number, from 0.")
    prompt: Text | None = None
    responses: list[Answer] | None = Field(
        None,
        min_length=1,
        max_length=MAX_ANSWERS,
        description="Independent samples for the same prompt, usually 10 at temperature 1; without "
        "them the spec's `sampler` draws some.",
    )
    answer: Answer | None = Field(
        None,
        description="The answer that is judged, e.g. the greedy one; it is no sample. Some scorers "
        "need it: they compare it with the samples, or read its own log-probabilities.",
    )
    references: list[Text] | None = Field(
        None,
        max_length=100,
        description="Right answers. Without `label` they give one: 0 when `answer` contains one.",
    )
    label: Literal[0, 1] | None = Field(None, description="1 = hallucinated, 0 = right.")
    similarity: list[list[SimilarityValue]] | None = Field(
        None, description="n x n, at most 1, with kind `precomputed`; row i against column j."
    )

    @model_validator(mode="after")
    def _square(self) -> Self:
        n = len(self.responses or [])
        if self.similarity is not None and (
            len(self.similarity) != n or any(len(row) != n for row in self.similarity)
        ):
            raise ValueError(f"similarity must be {n} x {n}, as there are {n} responses")
        return self


class Sampler(Model):
    """How answers are drawn for items that bring none."""

    model: ModelRef = Field(description="A model that the operator declared.")
    n: int = Field(10, ge=1, le=MAX_ANSWERS, description="Answers a prompt.")
    temperature: float = Field(1.0, gt=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(128, ge=1, le=8192)
    stop: list[Annotated[str, StringConstraints(min_length=1, max_length=128)]] = Field(
        default=[], max_length=4, description="Strings that end an answer."
    )
    seed: int | None = Field(None, ge=0, le=2**63 - 1, description="Sent with every request.")
    logprobs: bool = Field(True, description="Ask for token log-probabilities.")
    chat: bool = Field(False, description="Send the prompt as a user's turn of a chat.")
    greedy_answer: bool = Field(
        True, description="Where an item has no `answer`, draw one at temperature 0 to be judged."
    )


class Similarity(Model):
    """How alike two answers are, from 0 (or -1, precomputed cosines) to 1."""

    kind: Literal["rouge_l", "exact", "jaccard", "token_f1", "char_ngram", "precomputed"] = Field(
        "rouge_l",
        description="`rouge_l`: F-measure of the longest common token subsequence; `exact`: 1 for "
        "equal answers, else 0; `jaccard`: shared tokens over all tokens; `token_f1`: F-measure of "
        "the shared tokens, in any order; `char_ngram`: cosine of the counts of character "
        "trigrams; `precomputed`: the items bring their matrices.",
    )
    tokenizer: Literal["unicode", "paper"] = Field(
        "unicode",
        description="`unicode`: words of every script, numbers, signs; equal answers are alike "
        "whatever they are written in. `paper`: the official code's, which keeps [a-z0-9] only.",
    )
    symmetrize: Literal["none", "mean", "min", "max"] = Field(
        "none", description="Make a precomputed matrix symmetric before anything else."
    )


class Clustering(Model):
    """Which answers mean the same."""

    algorithm: Literal["greedy", "components"] = Field(
        "greedy",
        description="`greedy`: by cluster heads in order, as in the semantic-entropy papers; "
        "`components`: connected components.",
    )
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Answers at least this similar are equivalent; null: equal answers only.",
    )


class Spec(Model):
    """What to score, and how."""

    items: list[Item] | None = Field(None, min_length=1, max_length=1000)
    input: InputRef | None = Field(
        None, description="An uploaded JSONL file with one item a line, in place of `items`."
    )
    sampler: Sampler | None = Field(None, description="For items without `responses`.")
    scorers: list[ScorerName] = Field(default=["snne"], min_length=1)
    similarity: Similarity = Similarity()
    clustering: Clustering = Clustering()
    tau: float = Field(
        1.0,
        ge=1e-6,
        le=1e6,
        description="Scale of SNNE; useful from 0.1 to 10. Towards 0 the signal dies, because "
        "every answer is its own nearest neighbour.",
    )
    include_self: bool = Field(True, description="Whether SNNE's inner sum runs over j = i too.")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Of the bootstrap intervals.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.items is None) == (self.input is None):
            raise ValueError("give exactly one of items and input")
        if len(set(self.scorers)) != len(self.scorers):
            raise ValueError("a scorer is named twice")
        for index, item in enumerate(self.items or []):
            if fault := self.fault(item):
                raise ValueError(f"items/{index}: {fault[0]} {fault[1]}")
        return self

    def fault(self, item: Item) -> tuple[str, str] | None:
        """What this spec needs of an item and the item lacks: the field, and in words."""
        if item.responses is None:
            if self.sampler is None:
                return "responses", "is missing, and there is no sampler"
            if not item.prompt:
                return "prompt", "is missing: without responses it is what the sampler is asked"
        if item.similarity is None and self.similarity.kind == "precomputed":
            return "similarity", "is missing (kind precomputed)"
        return None


class Score(Model):
    """A scorer's verdict on an item."""

    value: float | None = Field(description="In the scorer's own range and direction.")
    direction: Literal["uncertainty", "confidence"] = Field(
        description="`uncertainty`: a higher value is more suspicious."
    )
    confidence: float | None = Field(
        description="0 (suspicious) to 1 (consistent), comparable over items with different n."
    )
    valid: bool
    reason: str | None = Field(None, description="Why the score is undefined.")


class Cluster(Model):
    """Answers that mean the same; the numbers are positions in `responses`."""

    members: list[int]
    size: int
    representative: int = Field(description="The member most similar to the others.")


class ItemResult(Model):
    """Scores of one item."""

    id: str
    prompt: str | None = Field(None, description="The end of it, for display.")
    answer: str | None = Field(None, description="The beginning of it, for display.")
    label: Literal[0, 1] | None = None
    scores: dict[str, Score]
    clusters: list[Cluster]
    n: int = Field(description="Answers.")
    n_unique: int = Field(description="Different answers, up to case and spacing.")


class Interval(Model):
    """An estimate with its 95 % bootstrap interval; null where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


class Evaluation(Model):
    """How well a scorer finds the labelled hallucinations; ties count half or are averaged."""

    n: int = Field(description="Labelled items with a valid score.")
    n_hallucinated: int
    auroc: Interval = Field(description="0.5 = chance, 1 = perfect.")
    auarc: Interval = Field(description="Area under the accuracy-rejection curve.")
    prr: Interval = Field(description="(area - random) / (oracle - random); 0 = chance.")
    prr_area: Interval = Field(description="The raw area, called PRR by the SNNE paper.")


class ScorerSummary(Model):
    """A scorer over all items."""

    direction: Literal["uncertainty", "confidence"]
    n_valid: int
    mean: float | None
    median: float | None
    std: float | None
    min: float | None
    max: float | None
    evaluation: Evaluation | None = Field(None, description="With labels only.")


class Summary(Model):
    """The job in numbers."""

    n_items: int
    n_answers: int
    labels: dict[str, int] = Field(
        description="How many labels were given, and how many the references gave."
    )
    scorers: dict[str, ScorerSummary]


class StoredFile(Model):
    """An artifact of the job."""

    id: str
    name: str
    media_type: str
    size: int
    sha256: str


class SamplingResult(Model):
    """What was drawn; the artifact is a valid `input` with everything filled in."""

    model: str
    n_items: int
    requests: int
    prompt_tokens: int
    completion_tokens: int
    artifact: StoredFile


class Result(Model):
    """Scores of all items; above 256 KiB they are in the artifact `items.jsonl`."""

    items: list[ItemResult] | None
    items_artifact: StoredFile | None = None
    summary: Summary
    sampling: SamplingResult | None = None
    figures: list[Figure]
    provenance: dict[str, Any]


_EXAMPLE = {
    "items": [
        {
            "id": "capital-au",
            "prompt": "What is the capital of Australia?",
            "responses": [{"text": "Canberra"}, {"text": "Canberra"}, {"text": "Sydney"}],
        }
    ],
    "scorers": ["snne", "discrete_semantic_entropy"],
}

JOB = JobType(
    name="score-hallucination",
    version="1",
    title="Score answers for hallucination",
    summary="Scores how inconsistent several sampled answers to the same question are, by SNNE and "
    "its peers. A model that knows says the same again; one that makes it up does not.",
    spec=Spec,
    result=Result,
    runner="methods.score_hallucination.job:run",
    resource="cpu",
    timeout=timedelta(hours=1),
    isolation="thread",
    paper="arXiv:2506.00245, arXiv:2502.15845",
    example=_EXAMPLE,
)
