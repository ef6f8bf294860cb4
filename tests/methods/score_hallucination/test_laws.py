"""Laws that the numerics obey whatever the answers are, against slow and plain references."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import roc_auc_score

from methods.results import Interval
from methods.score_hallucination.evaluation import ranking
from methods.score_hallucination.scorers import snne
from methods.score_hallucination.scoring.pipeline import Answers, ItemScores, Options, score
from methods.score_hallucination.similarity import clustering, identity, rouge_l
from methods.score_hallucination.similarity.tokenize import Tokenizer
from methods.typing import FloatArray

# The scorers of the first release; the others have tests of their own.
SCORERS = (
    "snne",
    "wsnne",
    "semantic_entropy",
    "discrete_semantic_entropy",
    "predictive_entropy",
    "num_semantic_sets",
    "lexical_similarity",
)


fast = settings(max_examples=40)
few = settings(max_examples=12)

words = st.sampled_from(["a", "b", "c", "the", "cat", "7"])
sentences = st.lists(words, max_size=9).map(" ".join)
scales = st.sampled_from([0.1, 0.5, 1.0, 10.0])
seeds = st.integers(0, 2**32 - 1)


def matrix_of(texts: Sequence[str], tokenizer: Tokenizer = "paper", wide: int = 16) -> FloatArray:
    """ROUGE-L, with answers of more than `wide` machine words in Python's integers."""
    level = "paper" if tokenizer == "paper" else "surface"
    distinct, positions = rouge_l.unique_answers([texts], level)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rouge_l, "_WIDE", wide)
        return rouge_l.rouge_l(distinct, positions, tokenizer)[0]


wides = st.sampled_from([0, 1, 16])


@st.composite
def matrices(draw: st.DrawFn, low: float = 0.0, n: int | None = None) -> FloatArray:
    """A similarity matrix with unit diagonal, not necessarily symmetric."""
    size = draw(st.integers(2, 6)) if n is None else n
    values = st.one_of(st.sampled_from([low, 0.5, 1.0]), st.floats(low, 1.0, width=32))
    flat = draw(st.lists(values, min_size=size * size, max_size=size * size))
    matrix = np.array(flat, dtype=np.float64).reshape(size, size)
    np.fill_diagonal(matrix, 1.0)
    return matrix


@st.composite
def items(draw: st.DrawFn, answers: st.SearchStrategy[int] | None = None) -> Answers:
    """An item with texts, log-probabilities and a symmetric precomputed matrix."""
    n = draw(st.integers(2, 5) if answers is None else answers)
    texts = draw(st.lists(sentences, min_size=n, max_size=n))
    logprobs = [
        draw(st.lists(st.floats(-6, 0, width=32), min_size=1, max_size=4)) for _ in range(n)
    ]
    matrix = draw(matrices(n=n))
    return Answers(texts, logprobs, np.maximum(matrix, matrix.T).tolist())


options = st.builds(
    Options,
    scorers=st.just(tuple(SCORERS)),
    kind=st.sampled_from(["rouge_l", "exact", "precomputed"]),
    tokenizer=st.sampled_from(["unicode", "paper"]),
    algorithm=st.sampled_from(["greedy", "components"]),
    threshold=st.sampled_from([None, 0.3, 0.6]),
    tau=scales,
    include_self=st.booleans(),
)


def assert_same_scores(left: ItemScores, right: ItemScores) -> None:
    assert left.reasons.keys() == right.reasons.keys()
    assert left.values == pytest.approx(right.values, rel=1e-12, abs=1e-12)
    assert left.confidences == pytest.approx(right.confidences, rel=1e-12, abs=1e-12)


# -- ROUGE-L ---------------------------------------------------------------------------------


def plain_lcs(left: Sequence[str], right: Sequence[str]) -> int:
    row = [0] * (len(right) + 1)
    for token in left:
        diagonal = 0
        for j, other in enumerate(right, start=1):
            above = row[j]
            row[j] = diagonal + 1 if token == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def plain_f_measure(left: Sequence[str], right: Sequence[str]) -> float:
    total = len(left) + len(right)
    return 2 * plain_lcs(left, right) / total if total else 0.0


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=2, max_size=6))
@fast
def test_rouge_l_of_short_answers_is_the_textbook_one(answers: list[list[str]]) -> None:
    matrix = matrix_of([" ".join(tokens) for tokens in answers])
    for i, j in itertools.combinations(range(len(answers)), 2):
        assert matrix[i, j] == matrix[j, i]
        assert matrix[i, j] == pytest.approx(plain_f_measure(answers[i], answers[j]), abs=1e-12)


@given(
    seeds,
    st.lists(
        st.sampled_from([1, 5, 63, 64, 65, 100, 127, 128, 129, 150, 200]), min_size=2, max_size=4
    ),
    st.sampled_from([1, 2, 4, 30]),
    wides,
)
@few
def test_rouge_l_of_long_answers_carries_from_word_to_word(
    seed: int, lengths: list[int], alphabet: int, wide: int
) -> None:
    rng = random.Random(seed)
    answers = [[f"t{rng.randrange(alphabet)}" for _ in range(length)] for length in lengths]
    matrix = matrix_of([" ".join(tokens) for tokens in answers], wide=wide)
    for i, j in itertools.combinations(range(len(answers)), 2):
        assert matrix[i, j] == pytest.approx(plain_f_measure(answers[i], answers[j]), abs=1e-12)


@given(seeds, st.integers(100, 300), st.integers(2, 8), wides)
@fast
def test_rouge_l_of_far_matches_carries_over_words_without_any(
    seed: int, length: int, shared: int, wide: int
) -> None:
    """Few matches, far apart and in another order: carries pass words that match nothing."""
    rng = random.Random(seed)
    long = [f"filler{k}" for k in range(length)]
    for k, place in enumerate(rng.sample(range(length), shared)):
        long[place] = f"shared{k % 3}"
    short = rng.sample([token for token in long if token.startswith("shared")], shared)
    matrix = matrix_of([" ".join(long), " ".join(short)], wide=wide)
    assert matrix[0, 1] == pytest.approx(plain_f_measure(long, short), abs=1e-12)


@pytest.mark.parametrize("wide", [0, 1, 16])
def test_rouge_l_carries_a_run_of_ones_through_whole_words(wide: int) -> None:
    """One token against a long run of it: the addition carries through every 64-bit word."""
    lengths = [1, 64, 128, 192, 193, 300]
    matrix = matrix_of([" ".join(["a"] * length) for length in lengths], wide=wide)
    for (i, m), (j, n) in itertools.combinations(enumerate(lengths), 2):
        assert matrix[i, j] == pytest.approx(2 * min(m, n) / (m + n), abs=1e-12)


@given(st.text(max_size=30), st.text(max_size=30))
@fast
def test_rouge_l_is_that_of_the_rouge_score_package(left: str, right: str) -> None:
    """On any text: this covers the tokens too."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    expected = scorer.score(left, right)["rougeL"].fmeasure
    if left != right:
        assert matrix_of([left, right])[0, 1] == pytest.approx(expected, abs=1e-12)


@given(sentences, sentences)
@fast
def test_rouge_l_of_words_is_that_of_the_rouge_score_package(left: str, right: str) -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    expected = scorer.score(left, right)["rougeL"].fmeasure
    assert matrix_of([left, right])[0, 1] == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.lists(sentences, min_size=1, max_size=5), min_size=1, max_size=5))
@fast
def test_rouge_l_of_many_items_is_that_of_each(batch: list[list[str]]) -> None:
    distinct, positions = rouge_l.unique_answers(batch)
    together = rouge_l.rouge_l(distinct, positions, "unicode")
    for texts, matrix in zip(batch, together, strict=True):
        np.testing.assert_array_equal(matrix, matrix_of(texts, "unicode"))


@given(st.lists(sentences, min_size=3, max_size=5))
@few
def test_rouge_l_in_many_small_parts_is_the_same(texts: list[str]) -> None:
    whole = matrix_of(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rouge_l, "_TABLE_LIMIT", 4)
        np.testing.assert_array_equal(matrix_of(texts), whole)


@given(st.text(st.characters(max_codepoint=127), max_size=40))
@settings(max_examples=300)
def test_ascii_has_the_tokens_of_any_script(content: str) -> None:
    parts = [p.findall(content) for p in (identity._ASCII, identity._UNICODE)]
    assert parts[0] == parts[1]


def test_long_work_can_be_ended_between_answers() -> None:
    answers = [" ".join(["a"] * length) for length in (2000, 2001, 2002)]
    distinct, positions = rouge_l.unique_answers([answers], "paper")

    def check() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        rouge_l.rouge_l(distinct, positions, "paper", check)


# -- clusters --------------------------------------------------------------------------------


@given(seeds, st.integers(1, 9), st.sampled_from([0.05, 0.2, 0.5]))
@fast
def test_components_are_those_of_the_graph(seed: int, n: int, density: float) -> None:
    equivalent = np.random.default_rng(seed).random((3, n, n)) < density
    for ids, edges in zip(clustering.components(equivalent), equivalent, strict=True):
        expected = connected_components(edges, directed=True, connection="weak")[1]
        renumbered = {label: k for k, label in enumerate(dict.fromkeys(expected.tolist()))}
        assert ids.tolist() == [renumbered[label] for label in expected.tolist()]


def test_components_of_a_long_chain_are_one() -> None:
    n = 60
    order = np.random.default_rng(3).permutation(n)
    chain = np.zeros((1, n, n), dtype=bool)
    chain[0, order[:-1], order[1:]] = True
    assert clustering.components(chain).max() == 0


# -- scores ----------------------------------------------------------------------------------


@given(items(), options.filter(lambda o: o.algorithm == "components"), st.randoms())
@fast
def test_the_order_of_the_answers_does_not_matter(
    item: Answers, chosen: Options, rng: random.Random
) -> None:
    order = list(range(len(item.texts)))
    rng.shuffle(order)
    given_matrix = np.array(item.matrix)
    shuffled = Answers(
        [item.texts[i] for i in order],
        [item.logprobs[i] for i in order],
        given_matrix[np.ix_(order, order)].tolist(),
    )
    first, second = score([item], chosen)[0], score([shuffled], chosen)[0]
    assert_same_scores(first, second)
    assert first.n_unique == second.n_unique
    for i, j in itertools.combinations(range(len(order)), 2):
        together = first.cluster_ids[order[i]] == first.cluster_ids[order[j]]
        assert together == (second.cluster_ids[i] == second.cluster_ids[j])


@given(st.lists(items(st.integers(1, 4)), min_size=1, max_size=5), options)
@fast
def test_a_batch_with_mixed_numbers_of_answers_scores_like_each_item_alone(
    batch: list[Answers], chosen: Options
) -> None:
    for item, together in zip(batch, score(batch, chosen), strict=True):
        alone = score([item], chosen)[0]
        assert_same_scores(together, alone)
        assert together.n == len(item.texts)
        assert together.cluster_ids.tolist() == alone.cluster_ids.tolist()
        assert together.representatives.tolist() == alone.representatives.tolist()


@given(items(st.integers(1, 5)), options)
@fast
def test_every_score_has_a_value_and_a_confidence_or_a_reason(
    item: Answers, chosen: Options
) -> None:
    scored = score([item], chosen)[0]
    assert scored.values.keys() == scored.confidences.keys()
    assert scored.values.keys() | scored.reasons.keys() == set(SCORERS)
    assert not scored.values.keys() & scored.reasons.keys()
    assert all(0 <= confidence <= 1 for confidence in scored.confidences.values())
    assert all(np.isfinite(value) for value in scored.values.values())


@given(matrices(), scales, st.booleans())
@fast
def test_snne_stays_within_its_bounds(matrix: FloatArray, tau: float, include_self: bool) -> None:
    low, high = snne.snne_bounds(len(matrix), tau, 0.0, include_self)
    loglik = np.linspace(-3, 0, len(matrix))
    for value in (
        snne.snne(matrix, tau, include_self),
        snne.wsnne(matrix, loglik, tau, include_self),
    ):
        assert low - 1e-12 <= value <= high + 1e-12


@given(matrices(low=-1.0), scales, st.booleans())
@fast
def test_snne_of_cosines_stays_within_its_bounds(
    matrix: FloatArray, tau: float, include_self: bool
) -> None:
    low, high = snne.snne_bounds(len(matrix), tau, -1.0, include_self)
    assert low - 1e-12 <= snne.snne(matrix, tau, include_self) <= high + 1e-12


@given(st.integers(2, 12), scales, st.booleans(), st.sampled_from([0.0, -1.0]))
@fast
def test_the_bounds_of_snne_are_attained(
    n: int, tau: float, include_self: bool, lowest: float
) -> None:
    low, high = snne.snne_bounds(n, tau, lowest, include_self)
    identical = np.ones((n, n))
    dissimilar = np.where(np.eye(n) > 0, 1.0, lowest)
    assert snne.snne(identical, tau, include_self) == pytest.approx(low, abs=1e-12)
    assert snne.snne(dissimilar, tau, include_self) == pytest.approx(high, abs=1e-12)


@given(matrices(), scales, st.booleans(), st.data())
@fast
def test_more_similar_answers_are_never_more_suspicious(
    matrix: FloatArray, tau: float, include_self: bool, data: st.DataObject
) -> None:
    i, j = data.draw(st.permutations(range(len(matrix))))[:2]
    raised = matrix.copy()
    raised[i, j] += data.draw(st.floats(0, 1)) * (1 - raised[i, j])
    before = snne.snne(matrix, tau, include_self)
    after = snne.snne(raised, tau, include_self)
    assert after <= before + 1e-12
    if raised[i, j] > matrix[i, j] + 0.1 and tau >= 0.5:
        assert after < before


@given(items(), options, st.floats(-5, 0))
@fast
def test_equally_likely_answers_weigh_the_same(
    item: Answers, chosen: Options, logprob: float
) -> None:
    equal = Answers(item.texts, [[logprob]] * len(item.texts), item.matrix)
    values = score([equal], chosen)[0].values
    if not values.keys() - {"predictive_entropy"}:
        return
    assert values["wsnne"] == pytest.approx(values["snne"], abs=1e-12)
    entropy = values["discrete_semantic_entropy"]
    assert values["semantic_entropy"] == pytest.approx(entropy, abs=1e-12)
    assert values["predictive_entropy"] == pytest.approx(-logprob)


@given(items(), options, st.floats(-3, 3))
@fast
def test_only_relative_likelihoods_weigh(item: Answers, chosen: Options, shift: float) -> None:
    moved = Answers(item.texts, [[p + shift for p in ps] for ps in item.logprobs], item.matrix)
    before, after = score([item], chosen)[0].values, score([moved], chosen)[0].values
    for name in before.keys() - {"predictive_entropy"}:
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=1e-6)


@given(st.integers(2, 6), sentences.filter(bool), options.filter(lambda o: o.kind != "precomputed"))
@fast
def test_identical_answers_are_as_consistent_as_can_be(n: int, text: str, chosen: Options) -> None:
    scored = score([Answers([text] * n, [[-0.5]] * n)], chosen)[0]
    confidences = {k: v for k, v in scored.confidences.items() if k != "predictive_entropy"}
    assert confidences == pytest.approx(dict.fromkeys(confidences, 1.0))
    assert scored.cluster_ids.tolist() == [0] * n
    assert scored.values["num_semantic_sets"] == 1
    assert len(confidences) == len(SCORERS) - 1


def test_items_whose_scores_are_equal_on_paper_are_tied() -> None:
    """Rounding must not rank items: the order of the answers is no evidence of anything."""
    rng = np.random.default_rng(5)
    texts = ["a b c", "a b d", "a e", "f", "a b c g", "h b", "a b c"]
    logprobs = [-0.1, -0.7, -1.3, -0.2, -2.9, -0.4, -0.6]
    batch = []
    for _ in range(40):
        order = rng.permutation(len(texts))
        batch.append(Answers([texts[i] for i in order], [[logprobs[i]] for i in order]))
    scored = score(batch, Options(scorers=tuple(SCORERS), algorithm="components"))
    quality = np.arange(len(batch)) % 2.0
    for name in SCORERS:
        metrics = ranking.evaluate(np.array([item.values[name] for item in scored]), quality)
        assert metrics["auroc"] == 0.5, name
        assert metrics["prr"] == pytest.approx(0, abs=1e-12), name


# -- evaluation ------------------------------------------------------------------------------


def brute_force(uncertainty: FloatArray, quality: FloatArray) -> dict[str, float]:
    """The mean over every order that sorts the scores, by the definitions."""
    n = len(quality)
    low, high = quality.min(), quality.max()
    scaled = (quality - low) / (high - low)
    areas, auarcs = [], []
    for order in itertools.permutations(range(n)):
        if any(uncertainty[a] > uncertainty[b] for a, b in itertools.pairwise(order)):
            continue
        steps = np.arange(1, n + 1)
        areas.append((np.cumsum(scaled[list(order)]) / steps).mean())
        curve = np.cumsum(quality[list(order)]) / steps
        auarcs.append(np.trapezoid(curve, np.linspace(0, 1, n)))
    best = (np.cumsum(np.sort(scaled)[::-1]) / np.arange(1, n + 1)).mean()
    area, chance = float(np.mean(areas)), scaled.mean()
    return {
        "auarc": float(np.mean(auarcs)),
        "prr_area": area,
        "prr": float((area - chance) / (best - chance)),
    }


qualities = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=5)
graded = st.lists(st.sampled_from([0.0, 0.25, 0.5, 2.0]), min_size=2, max_size=5)


@given(st.one_of(qualities, graded).filter(lambda q: len(set(q)) > 1), st.data())
@fast
def test_metrics_are_the_mean_over_all_orders_of_tied_items(
    quality: list[float], data: st.DataObject
) -> None:
    size = len(quality)
    tied = data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    uncertainty = np.array(tied, dtype=np.float64)
    values = ranking.evaluate(uncertainty, np.array(quality))
    expected = brute_force(uncertainty, np.array(quality))
    assert {k: values[k] for k in expected} == pytest.approx(expected, abs=1e-12)


@st.composite
def labelled(draw: st.DrawFn, size: int = 30) -> tuple[FloatArray, FloatArray]:
    """Scores with ties and labels of both classes."""
    n = draw(st.integers(2, size))
    rng = np.random.default_rng(draw(seeds))
    uncertainty = rng.integers(0, draw(st.sampled_from([2, 5, 1000])), n).astype(np.float64)
    quality = rng.integers(0, 2, n).astype(np.float64)
    quality[:2] = 0.0, 1.0
    return uncertainty, quality


@given(labelled())
@fast
def test_auroc_is_that_of_scikit_learn(case: tuple[FloatArray, FloatArray]) -> None:
    uncertainty, quality = case
    auroc = ranking.evaluate(uncertainty, quality)["auroc"]
    assert auroc == pytest.approx(roc_auc_score(1 - quality, uncertainty), abs=1e-12)
    assert ranking.evaluate(-uncertainty, quality)["auroc"] == pytest.approx(1 - auroc)


@given(labelled())
@fast
def test_roc_curve_encloses_the_auroc(case: tuple[FloatArray, FloatArray]) -> None:
    uncertainty, quality = case
    false, true = ranking.roc_curve(uncertainty, quality == 0)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(true) >= 0).all()
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    area = ranking.evaluate(uncertainty, quality)["auroc"]
    assert np.trapezoid(true, false) == pytest.approx(area, abs=1e-12)


@given(labelled())
@fast
def test_the_rejection_curve_encloses_the_auarc(case: tuple[FloatArray, FloatArray]) -> None:
    uncertainty, quality = case
    order = np.argsort(uncertainty, kind="stable")
    tied = np.unique(uncertainty, return_inverse=True)[1]
    means = np.array([quality[tied == group].mean() for group in range(tied.max() + 1)])
    kept = np.arange(1, len(quality) + 1)
    curve = ranking.accuracy_rejection_curve(uncertainty, quality)
    assert curve[-1] == pytest.approx(quality.mean())
    np.testing.assert_allclose(curve, np.cumsum(means[tied[order]]) / kept, atol=1e-12)
    area = np.trapezoid(curve, np.linspace(0, 1, len(curve)))
    assert ranking.evaluate(uncertainty, quality)["auarc"] == pytest.approx(area, abs=1e-12)


@given(labelled(), st.randoms())
@fast
def test_metrics_see_ranks_only(case: tuple[FloatArray, FloatArray], rng: random.Random) -> None:
    uncertainty, quality = case
    expected = ranking.evaluate(uncertainty, quality)
    order = list(range(len(quality)))
    rng.shuffle(order)
    shuffled = ranking.evaluate(2 * uncertainty[order] + 7, quality[order])
    assert shuffled == pytest.approx(expected, abs=1e-12)


@given(labelled())
@fast
def test_the_truth_itself_is_the_best_score(case: tuple[FloatArray, FloatArray]) -> None:
    uncertainty, quality = case
    best = ranking.evaluate(-quality, quality)
    assert best["auroc"] == 1
    assert best["prr"] == pytest.approx(1)
    values = ranking.evaluate(uncertainty, quality)
    assert all(values[name] <= best[name] + 1e-12 for name in ranking.METRICS)


@given(st.integers(2, 20), st.sampled_from([0.0, 1.0]), seeds)
@few
def test_one_class_has_no_auroc_and_no_prr(n: int, only: float, seed: int) -> None:
    uncertainty = np.random.default_rng(seed).random(n)
    values = ranking.evaluate(uncertainty, np.full(n, only))
    assert np.isnan(values["auroc"])
    assert np.isnan(values["prr"])
    assert values["auarc"] == pytest.approx(only)
    estimates = ranking.bootstrap(uncertainty, np.full(n, only), np.random.default_rng(0), 20)
    assert estimates["auroc"] == Interval(value=None, low=None, high=None)


def bootstrapped(case: tuple[FloatArray, FloatArray], seed: int) -> dict[str, Any]:
    return ranking.bootstrap(*case, np.random.default_rng(seed), 200)


@given(labelled())
@few
def test_bootstrap_is_deterministic_for_a_seed(case: tuple[FloatArray, FloatArray]) -> None:
    assert bootstrapped(case, 11) == bootstrapped(case, 11)


@given(seeds)
@few
def test_bootstrap_intervals_surround_the_estimate(seed: int) -> None:
    rng = np.random.default_rng(seed)
    quality = (rng.random(150) < 0.6).astype(np.float64)
    uncertainty = rng.normal(size=150) - quality
    point = ranking.evaluate(uncertainty, quality)
    for name, estimate in bootstrapped((uncertainty, quality), seed).items():
        assert estimate.value == point[name]
        assert estimate.low < estimate.value < estimate.high
        assert 0 < estimate.high - estimate.low < 0.8


def test_bootstrap_resamples_are_evaluated_like_any_sample() -> None:
    """The batched resamples against the same draws evaluated one by one."""
    rng = np.random.default_rng(2)
    uncertainty = rng.integers(0, 4, 25).astype(np.float64)
    quality = rng.integers(0, 2, 25).astype(np.float64)
    draws = np.random.default_rng(9).integers(25, size=(200, 25))
    singles = [ranking.evaluate(uncertainty[d], quality[d]) for d in draws]
    estimates = ranking.bootstrap(uncertainty, quality, np.random.default_rng(9), 200)
    for name in ranking.METRICS:
        values = np.array([single[name] for single in singles])
        low, high = np.percentile(values[np.isfinite(values)], (2.5, 97.5))
        estimate = estimates[name]
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-12)
