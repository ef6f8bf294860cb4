"""Black-box and white-box confidences, clusters and calibration against UQLM 0.6.7."""

from __future__ import annotations

import numpy as np
import pytest

from methods.score_hallucination.calibration import fits
from methods.score_hallucination.evaluation import selective_prediction
from methods.score_hallucination.scorers import consistency, ensemble, whitebox
from methods.score_hallucination.similarity import equivalence, nli
from tests.methods.score_hallucination import upstream
from tests.methods.score_hallucination.golden import assert_same, golden, number

FILE = golden("uqlm")
KINDS = ("entailment", "noncontradiction", "contrasted_entailment")


def _table(case: dict) -> dict[tuple[str, str], list[float]]:
    return {(row["premise"], row["hypothesis"]): row["p"] for row in case["nli"]}


def _name(case: dict) -> str:
    return f"{case['n_candidates']}-{case['kind']}"


def _probabilities(texts: list[str], table: dict[tuple[str, str], list[float]]) -> np.ndarray:
    return np.array([[table[a, b] for b in texts] for a in texts])


@pytest.mark.parametrize("case", FILE["semantic_cases"], ids=_name)
def test_overlapping_clusters(case: dict) -> None:
    texts = [case["response"], *case["sampled_responses"]]
    p = _probabilities(texts, _table(case))[None]
    member = equivalence.overlapping(equivalence.equivalent(equivalence.labels(p), "either"))
    found = [np.flatnonzero(row).tolist() for row in member[0] if row.any()]
    assert found == case["cluster_indices"]
    probability = np.exp([np.mean([t["logprob"] for t in row]) for row in case["logprobs"]])[None]
    assert_same(probability[0], case["response_probabilities_token"])
    clusters, n = len(found), len(texts)
    discrete = equivalence.overlapping_probabilities(member)[0, :clusters]
    assert_same(discrete, case["cluster_probabilities_discrete"])
    weighted = equivalence.overlapping_probabilities(member, probability)[0, :clusters]
    assert_same(weighted, case["cluster_probabilities_token"])
    entropy = upstream.overlapping_entropy(member)[0]
    assert_same(entropy, case["discrete_semantic_entropy"])
    assert_same(1 - entropy / np.log(n), case["semantic_negentropy_discrete"])
    entropy = upstream.overlapping_entropy(member, probability)[0]
    assert_same(entropy, case["token_semantic_entropy"])
    assert_same(1 - entropy / np.log(n), case["semantic_negentropy_token"])
    assert_same((n - clusters) / (n - 1), case["semantic_sets_confidence"])


@pytest.mark.parametrize("case", FILE["semantic_cases"], ids=_name)
def test_agreement_of_the_answer_with_its_samples(case: dict) -> None:
    samples = case["sampled_responses"]
    p = _probabilities([case["response"], *samples], _table(case))
    forward, backward = p[None, 0, 1:], p[None, 1:, 0]
    equal = np.array([[case["response"] == sample for sample in samples]])
    assert_same(consistency.noncontradiction(forward, backward, equal)[0], case["noncontradiction"])
    assert_same(consistency.entailment(forward, backward, equal)[0], case["entailment"])
    assert_same(consistency.exact_match(equal)[0], case["exact_match"])
    loglik = np.array([[np.mean([t["logprob"] for t in row]) for row in case["logprobs"]]])
    assert_same(whitebox.monte_carlo_probability(loglik)[0], case["monte_carlo_probability"])
    kernel = 1 - (forward[..., 0] + forward[..., 1] / 2)
    # The table has six decimals, its probabilities do not sum to 1 exactly; nor does UQLM ask.
    assert_same(whitebox.semantic_density(loglik[:, 1:], kernel)[0], case["semantic_density"])


@pytest.mark.parametrize("case", FILE["cosine_cases"], ids=lambda c: str(len(c["embeddings"])))
def test_cosine(case: dict) -> None:
    answer, *samples = (number(row) for row in case["embeddings"].values())
    assert_same(consistency.cosine(answer[None], np.stack(samples)[None])[0], case["cosine_sim"])


@pytest.mark.parametrize("case", FILE["white_box_cases"], ids=lambda c: str(c["n_tokens"]))
def test_token_probabilities(case: dict) -> None:
    logprobs = number([[token["logprob"] for token in case["logprobs"]]])
    top = number([[[t["logprob"] for t in token["top_logprobs"]] for token in case["logprobs"]]])
    assert_same(whitebox.min_token_prob(logprobs)[0], case["min_probability"])
    assert_same(np.exp(-whitebox.perplexity(logprobs))[0], case["sequence_probability"])
    assert_same(np.exp(-whitebox.msp(logprobs))[0], case["sequence_probability_unnormalized"])
    most = np.log(top.shape[-1])
    assert_same(1 - whitebox.mean_token_entropy(top)[0] / most, case["mean_token_negentropy"])
    worst = whitebox.token_entropy(top)[0].max()
    assert_same(1 - worst / most, case["min_token_negentropy"])
    assert_same(whitebox.prob_margin(top)[0], case["probability_margin"])


@pytest.mark.parametrize("case", FILE["long_form_cases"], ids=lambda c: str(len(c["claims"])))
def test_claims(case: dict) -> None:
    table = _table(case)
    count = len(case["sampled_responses"])
    sentences = sorted({a for a, _ in table if a.startswith("sc ")})
    by_response = [[s for s in sentences if s.startswith(f"sc {r} ")] for r in range(count)]
    whole = number([[table[r, c] for r in case["sampled_responses"]] for c in case["claims"]])
    parts = number([[[table[s, c] for s in by] for by in by_response] for c in case["claims"]])
    for kind in KINDS:
        assert_same(
            upstream.unit_response(whole, kind), case["unit_response_claim_scores"][kind][0]
        )
        assert_same(upstream.matched_unit(parts, kind), case["matched_unit_claim_scores"][kind][0])
    assert_same(consistency.support(whole), case["graph_input_biadjacency"])


@pytest.mark.parametrize("case", FILE["calibration_cases"], ids=lambda c: str(c["n"]))
def test_calibrators(case: dict) -> None:
    scores, right, test = (number(case[k]) for k in ("scores", "correct", "test_scores"))
    platt = fits.fit_platt(scores, right, compat="upstream")
    # The original's solver stops at a gradient of 1e-4, ours at the optimum.
    assert_same([platt.slope, platt.intercept], case["platt_coef_intercept"], rtol=2e-3)
    assert_same(platt.predict(test), case["platt"], rtol=1e-3)
    isotonic = fits.fit_isotonic(scores, right, at_least=2)
    assert_same(isotonic.predict(test), case["isotonic"])


def test_ensembles_leave_out_what_is_undefined() -> None:
    for case in FILE["tuner_cases"]:
        if "ensemble_0.7_0.3" in case:
            scores = number(case["scores"])[:, :10]
            assert_same(ensemble.combine(scores, [0.7, 0.3]), case["ensemble_0.7_0.3"])
        else:
            found = ensemble.combine(number(case["scores"]), number(case["weights"]))
            assert_same(found, case["ensemble"])


@pytest.mark.parametrize("case", FILE["tuner_cases"][:-1], ids=lambda c: str(len(c["correct"])))
def test_thresholds_and_weights_by_grid_search(case: dict) -> None:
    scores, right = number(case["scores"]), number(case["correct"])
    for objective in ("f1", "accuracy", "balanced_accuracy"):
        values = upstream.threshold_values(scores[0], right, objective)
        name = "fbeta" if objective == "f1" else objective
        best = selective_prediction.THRESHOLDS[np.argmax(values)]
        assert_same(best, case[f"threshold_{name}_score"])
    grid = np.linspace(0, 1, 100)
    weights = np.stack([grid, 1 - grid], axis=1)
    chosen = weights[np.argmax(ensemble.mixture_auroc(scores, right, weights))]
    assert_same(chosen, case["weights_roc_auc_then_f1"]["weights"])
    values = upstream.threshold_values(ensemble.combine(scores, chosen), right, "f1")
    best = selective_prediction.THRESHOLDS[np.argmax(values)]
    assert_same(best, case["weights_roc_auc_then_f1"]["thresh"])
    # The joint search was recorded with a step of 0.05.
    thresholds, weights = np.linspace(0.05, 0.95, 19), np.linspace([0, 1], [1, 0], 20)
    joint = np.array(
        [
            upstream.threshold_values(ensemble.combine(scores, w), right, "f1", thresholds)
            for w in weights
        ]
    )
    row, column = np.unravel_index(np.argmax(joint), joint.shape)
    assert_same(weights[row], case["joint_f1"]["weights"])
    assert_same(thresholds[column], case["joint_f1"]["thresh"])


def test_one_way_entailment_joins_two_clusters() -> None:
    edge = FILE["edge"]["one_way_entailment_multi_membership"]
    p = _probabilities(edge["responses"], _table(edge))[None]
    member = equivalence.overlapping(equivalence.equivalent(equivalence.labels(p), "either"))
    assert [np.flatnonzero(row).tolist() for row in member[0, :2]] == edge["cluster_indices"]
    assert_same(equivalence.overlapping_probabilities(member)[0, :2], edge["cluster_probabilities"])
    assert_same(upstream.overlapping_entropy(member)[0], edge["discrete_semantic_entropy"])
    strict = equivalence.first_match(equivalence.equivalent(equivalence.labels(p), "strict"))
    assert strict[0].tolist() == [0, 1, 2]


def test_selfcheck_nli_contrasts_contradiction_with_entailment() -> None:
    p = number([[[[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]]]])
    assert_same(nli.selfcheck_nli(p), [[(0.4 + 0.5) / 2]])
