"""What synthesize-text answers."""

from __future__ import annotations

from pydantic import Field

from methods.jobtype import SpecModel
from methods.results import ArtifactRef, Interval, JobResult


class SetDistances(SpecModel):
    """How far sets of texts are from a label's target: 1 - cosine of their mean gradient and it,
    from 0 to 2. Null where there is no such set."""

    kept: float | None = Field(description="Distance of the texts that were kept.")
    unselected: float | None = Field(description="Distance of drawn texts as they came, as many.")
    random_vocabulary: float | None = Field(description="Distance of random tokens.")
    noise_target: float | None = Field(
        None,
        description="Distance of texts that gradmm optimised towards noise in place of the target.",
    )
    held_out_real: float | None = Field(
        None, description="Distance of real texts that the target does not have."
    )


class LabelMade(SpecModel):
    """What was made for a label."""

    name: str = Field(description="The label.")
    word: str = Field(description="The word that stands for it.")
    real: int = Field(description="Real texts that the target is the mean of.")
    held_out: int = Field(description="Real texts that nothing was aimed at.")
    drawn: int = Field(description="Texts that were drawn or optimised.")
    kept: int = Field(description="Texts that were kept.")
    dropped_by: dict[str, int] = Field(
        description="Texts that were not kept, by reason: empty, duplicate, classifier, log_loss, "
        "balance, not_chosen."
    )
    distance: SetDistances = Field(description="How near sets are to the target.")
    median_distance: SetDistances = Field(description="The median of texts, each alone.")
    contrast: float | None = Field(
        description="Median distance of held-out texts of other labels, with this label's word, "
        "over that of held-out texts of the label; below 1.2 the gradient hardly tells labels "
        "apart."
    )
    agreement: float | None = Field(
        description="Share of all texts made for the label to which the model itself gives it, "
        "less its leaning to one label word over all texts (batch calibration, arXiv:2309.17249)."
    )
    agreement_kept: float | None = Field(description="The same of the kept texts.")
    log_loss: float | None = Field(
        description="Mean negative log-likelihood of a token of the kept texts, in nats."
    )
    held_out_log_loss: float | None = Field(None, description="The same of held-out real texts.")


class Curve(SpecModel):
    """How an optimisation went: medians and quartiles over the groups of a label."""

    label: str = Field(description="The label.")
    outer_step: int = Field(description="Counted from 1.")
    groups: int = Field(description="Groups that got so far.")
    embeddings: list[float] | None = Field(
        None, description="Distance of the free embeddings: lower quartile, median, upper quartile."
    )
    tokens: list[float] | None = Field(None, description="Distance of their tokens; likewise.")
    residual: list[float] | None = Field(
        None, description="Root mean square of what lies between them; likewise."
    )
    gradient_ratio: list[float] | None = Field(
        None, description="Norm of the distance's gradient over that of the penalty's; likewise."
    )
    changed: list[float] | None = Field(
        None, description="Share of tokens that changed in the step; likewise."
    )


class ArmSeed(SpecModel):
    """One fine-tuning."""

    seed: int = Field(description="Its number.")
    accuracy: float = Field(description="Share of held-out texts given their label.")
    auc: float | None = Field(description="Area under the ROC curve; of more labels their mean.")


class ArmMade(SpecModel):
    """A training set and how well a model does that was fine-tuned on it."""

    arm: str = Field(
        description="`kept`, `real`, `unselected`, `random-vocabulary`, or `none`: not trained."
    )
    n: int = Field(description="Texts that were trained on.")
    accuracy: Interval = Field(description="Mean over seeds, with a 95 % interval.")
    auc: float | None = Field(description="Mean over seeds.")
    seeds: list[ArmSeed] = Field(description="Each fine-tuning.")


class ArmDifference(SpecModel):
    """How two arms differ on the same held-out texts."""

    arm: str = Field(description="One arm.")
    than: str = Field(description="The other.")
    accuracy: Interval = Field(description="Accuracy of the one less that of the other.")
    verdict: str = Field(description="`better`, `worse`, or `not told apart`.")


class Diversity(SpecModel):
    """How much the kept texts differ from each other; beside it the same of real texts."""

    distinct_1: float = Field(description="Different words over words.")
    distinct_2: float = Field(description="Different pairs of words over pairs.")
    self_bleu4: float | None = Field(
        description="BLEU-4 of a text against all others of its label, mean; 1: all alike."
    )
    embedding_spread: float | None = Field(
        description="Mean 1 - cosine between mean hidden states of texts of a label."
    )
    mean_words: float = Field(description="Words of a text.")


class Half(SpecModel):
    """How much kept texts share with a half of the real ones."""

    texts: int = Field(description="Real texts in the half; both halves have as many.")
    exact: int = Field(description="Kept texts that have the same words as one of them.")
    longest_run_mean: float = Field(description="Words of the longest common run, mean.")
    longest_run_max: int = Field(description="The longest of all.")
    trigram_share: float | None = Field(description="Share of runs of three words, mean.")
    ngram8_share: float | None = Field(description="Share of runs of eight words, mean.")


class NearestPair(SpecModel):
    """A kept text and the real text that shares the longest run with it."""

    row: int = Field(description="Row of `texts.jsonl`, from 0.")
    real_row: int = Field(description="Row of the real texts, from 0.")
    longest_run: int = Field(description="Words of the run.")
    exact: bool = Field(description="Whether all words are the same.")


class Leakage(SpecModel):
    """What kept texts tell of the real texts that they were aimed at: synthetic, not anonymised."""

    used: Half = Field(description="What is shared with texts that the target has.")
    control: Half = Field(description="The same with held-out texts, which nothing was aimed at.")
    copying_auc: Interval = Field(
        description="Chance that a kept text shares a longer run with used than with held-out "
        "texts; 0.5: no more than by chance. 95 % interval."
    )
    membership_auc: Interval = Field(
        description="How well the likeness to the nearest kept text tells used real texts from "
        "held-out ones; 0.5: not at all. 95 % interval."
    )
    nearest: list[NearestPair] = Field(description="The longest runs, by row number.")


class LabelRelease(SpecModel):
    """The noisy target of a label."""

    label: str = Field(description="The label.")
    n: int = Field(description="Texts that it is the mean of; taken as public.")
    clip: float = Field(description="Largest norm of a text's gradient in the subspace.")
    sensitivity: float = Field(description="How far one record can move the mean.")
    sigma: float = Field(description="Standard deviation of the noise in each dimension.")
    rho: float = Field(description="Its zCDP parameter.")
    expected_cosine: float = Field(
        description="About which cosine the noisy target has to the exact one's part in the "
        "subspace, if real texts have gradients as long as drawn ones; below 0.3 it hardly says "
        "anything."
    )
    reused: bool = Field(description="The release of an earlier equal request; nothing was spent.")
    releases: int = Field(description="Releases of this data set and label by this owner so far.")
    epsilon_total: float = Field(description="What they give away together, at `delta`.")


class PrivacyStatement(SpecModel):
    """What the texts give away of the real ones. Experimental."""

    mechanism: str = Field(description="What was released, and how.")
    adjacency: str = Field(description="What one person may change.")
    epsilon: float = Field(description="Epsilon of each release.")
    delta: float = Field(description="Delta of each release.")
    subspace: int = Field(description="Dimensions of the subspace.")
    releases: list[LabelRelease] = Field(description="One for each label; labels share no text.")
    epsilon_total: float = Field(
        description="What all releases of this data set give away, at `delta`: the largest of the "
        "labels, which share no text."
    )
    owner_epsilon_total: float = Field(
        description="What all releases of this owner give away of somebody who is in every data "
        "set, at `delta`."
    )
    statement: str = Field(description="The same in words.")


class Work(SpecModel):
    """What it took."""

    parts: int = Field(description="Child jobs.")
    restored: int = Field(description="Child jobs whose result was there already.")
    forward_tokens: int = Field(description="Tokens that models read or wrote.")
    seconds: dict[str, float] = Field(description="Seconds by phase, of this attempt.")


class TextMade(SpecModel):
    """A text that was made."""

    text: str = Field(description="The text.")
    label: str = Field(description="Its label.")
    distance: float | None = Field(description="Its own distance to the target.")
    log_loss: float | None = Field(description="Mean negative log-likelihood of a token, in nats.")


class Result(JobResult):
    """Texts that were made for labels, and what they are worth."""

    method: str = Field(description="How they were made.")
    labels: list[LabelMade] = Field(description="What was made for each label.")
    curves: list[Curve] = Field(description="How the optimisation went; empty without one.")
    evaluation: list[ArmMade] = Field(description="Fine-tuning on each set; empty without one.")
    differences: list[ArmDifference] = Field(description="The kept texts against other arms.")
    diversity: Diversity = Field(description="How much the kept texts differ from each other.")
    leakage: Leakage | None = Field(
        None, description="What they share with real texts; null without held-out texts."
    )
    privacy: PrivacyStatement | None = Field(None, description="What was asked for, and holds.")
    preview: list[TextMade] = Field(description="Some of the kept texts.")
    work: Work = Field(description="Parts, tokens and seconds that it took.")
    artifacts: dict[str, ArtifactRef] = Field(
        description="Files by name: texts.jsonl (all texts with scores and why they were "
        "dropped), train.jsonl (the kept ones, labels alternating), curves.jsonl, "
        "target-<number of the label>.npz."
    )
