"""The numerics against numbers of the official SNNE code and of LM-Polygraph.

The files hold facts only; each says under `how` where its numbers come from. The tests go over
whatever cases a file has, so a file may be exchanged for one with other cases.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from methods.score_hallucination.evaluation import ranking
from methods.score_hallucination.scorers import snne
from methods.score_hallucination.scoring.pipeline import Answers, Options, score
from methods.score_hallucination.similarity import clustering, rouge_l
from methods.score_hallucination.similarity.tokenize import tokenize_paper
from methods.score_hallucination.spec import Spec
from methods.typing import BoolArray, FloatArray
from tests.methods.score_hallucination import upstream

Case = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "golden" / "hallucination"
EXACT = {"rtol": 1e-9, "atol": 1e-12}
# Upstream casts similarity matrices to float32, whose own rounding is 6e-8 of the largest entry.
SINGLE = {"rtol": 1e-6, "atol": 1e-6}


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def named(cases: list[Case], *keys: str) -> list[Any]:
    """Parameters with readable ids."""
    return [
        pytest.param(case, id="-".join(str(case[key]) for key in keys) or None) for case in cases
    ]


def number(value: float | str) -> float:
    """A golden number; what is not finite is a string."""
    return float(value)


CORE = load("snne_core")
LEXICAL = load("snne_lexical")
CLUSTERING = load("snne_clustering_entropy")
METRICS = load("snne_metrics")
POLYGRAPH = load("lm_polygraph_metrics")

PUBLISHED = [
    case for case in CORE["cases"] + CORE["extreme_temperature"] if case["variant"] == "only_denom"
]
BAD_TEMPERATURES = [case for case in CORE["bad_inputs"] if case.get("temperature", 1.0) <= 0]
EQUIVALENCES = CLUSTERING["equivalence_cases"]


def same_cluster(labels: list[int]) -> BoolArray:
    ids = np.array(labels)
    return np.asarray(ids[:, None] == ids[None, :])


def ids_of(equivalent: Any, algorithm: str) -> list[int]:
    function = clustering.greedy if algorithm == "greedy" else clustering.components
    ids: list[int] = function(np.asarray(equivalent, dtype=bool)[None])[0].tolist()
    return ids


# -- SNNE ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", named(PUBLISHED, "matrix", "temperature", "exclude_diagonal"))
def test_snne(case: Case) -> None:
    matrix = np.array(CORE["matrices"][case["matrix"]])[None]
    include_self = not case["exclude_diagonal"]
    value = snne.snne(matrix, case["temperature"], include_self)
    np.testing.assert_allclose(value, number(case["out_f64"]), **EXACT)


@pytest.mark.parametrize(
    "case",
    named(
        [case for case in PUBLISHED if "out_weighted_f64" in case],
        "matrix",
        "temperature",
        "exclude_diagonal",
    ),
)
def test_wsnne(case: Case) -> None:
    matrix = np.array(CORE["matrices"][case["matrix"]])[None]
    loglik = np.log(CORE["weights"][case["matrix"]])[None]
    value = snne.wsnne(matrix, loglik, case["temperature"], not case["exclude_diagonal"])
    np.testing.assert_allclose(value, number(case["out_weighted_f64"]), **EXACT)


def test_snne_files_hold_what_the_tests_need() -> None:
    assert {case["exclude_diagonal"] for case in PUBLISHED} == {True, False}
    assert any("out_weighted_f64" in case for case in PUBLISHED)


@pytest.mark.parametrize("case", named(BAD_TEMPERATURES, "temperature"))
def test_a_temperature_at_which_upstream_inverts_or_diverges_is_refused(case: Case) -> None:
    item = {"responses": [{"text": "a"}, {"text": "b"}]}
    with pytest.raises(ValidationError, match="tau"):
        Spec.model_validate({"items": [item], "tau": case["temperature"]})


@pytest.mark.parametrize("case", named(CORE["theorem_checks"], "n", "labels", "tau"))
def test_snne_generalises_semantic_entropy(case: Case) -> None:
    """Theorems 4.1 and 4.2 of the paper, with the similarities that its proofs construct."""
    labels, tau = case["labels"], case["tau"]
    ids = np.unique(labels, return_inverse=True)[1][None]
    loglik = np.array(case["length_norm_loglik"])[None]
    together = same_cluster(labels)
    discrete = np.where(together, -tau * np.log(case["n"]), -np.inf)[None]
    shares = loglik - np.logaddexp.reduce(loglik, axis=-1, keepdims=True)
    weighted = np.where(together, tau * shares, -np.inf)

    for value in (snne.snne(discrete, tau), snne.discrete_semantic_entropy(ids)):
        np.testing.assert_allclose(value, case["dse"], **EXACT)
        np.testing.assert_allclose(value, case["snne_thm41"], **EXACT)
    for value in (snne.wsnne(weighted, loglik, tau), snne.semantic_entropy(loglik, ids)):
        np.testing.assert_allclose(value, case["se"], **EXACT)
        np.testing.assert_allclose(value, case["wsnne_thm42"], **EXACT)


# -- texts -----------------------------------------------------------------------------------


def paper_rouge_l(texts: list[str]) -> FloatArray:
    distinct, positions = rouge_l.unique_answers([texts], "paper")
    return rouge_l.rouge_l(distinct, positions, "paper")[0]


@pytest.mark.parametrize("case", named(LEXICAL["cases"], "name"))
def test_paper_tokens(case: Case) -> None:
    assert [tokenize_paper(text) for text in case["texts"]] == case["tokens"]


@pytest.mark.parametrize("case", named(LEXICAL["cases"], "name"))
def test_rouge_l_matrix(case: Case) -> None:
    np.testing.assert_allclose(paper_rouge_l(case["texts"]), case["rougeL_matrix"], **SINGLE)


@pytest.mark.parametrize("case", named(LEXICAL["cases"], "name"))
def test_snne_from_texts(case: Case) -> None:
    matrix = paper_rouge_l(case["texts"])[None]
    for key, include_self in (("snne", True), ("snne_no_self", False)):
        for tau, value in case[key].items():
            np.testing.assert_allclose(
                snne.snne(matrix, float(tau), include_self), number(value), **SINGLE
            )


@pytest.mark.parametrize("case", named(LEXICAL["cases"], "name"))
def test_exact_match(case: Case) -> None:
    _, positions = rouge_l.unique_answers([case["texts"]], "paper")
    equal = rouge_l.exact(positions)[0]
    assert equal.tolist() == case["exact_match_matrix"]
    assert ids_of(equal, "greedy") == case["exact_match_ids_greedy"]
    assert ids_of(equal, "dfs") == case["exact_match_ids_dfs"]
    entropy = snne.discrete_semantic_entropy(np.array([ids_of(equal, "greedy")]))
    np.testing.assert_allclose(entropy, case["dse_exact_match"], **EXACT)


@pytest.mark.parametrize("case", named(LEXICAL["cases"], "name"))
def test_scores_from_texts_with_the_options_of_the_paper(case: Case) -> None:
    """The whole way from texts; where we call a score undefined, upstream has a number anyway."""
    names = ("snne", "discrete_semantic_entropy", "lexical_similarity")
    scored = score([Answers(case["texts"])], Options(scorers=names, tokenizer="paper"))[0]
    if len(case["texts"]) < 2 or not any(text.strip() for text in case["texts"]):
        assert scored.values == {}
        assert set(scored.reasons) == set(names)
        return
    expected = {
        "snne": number(case["snne"]["1.0"]),
        "discrete_semantic_entropy": number(case["dse_exact_match"]),
        # Ours is an uncertainty, upstream lists the similarity.
        "lexical_similarity": -number(case["lexsim"]),
    }
    assert scored.values == pytest.approx(expected, rel=1e-6, abs=1e-6)


# -- clusters --------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["greedy", "dfs"])
@pytest.mark.parametrize("case", named(EQUIVALENCES, "name"))
def test_clusters_and_their_entropies(case: Case, algorithm: str) -> None:
    ids = np.array([ids_of(case["equivalent"], algorithm)])
    loglik = np.array([case["length_norm_loglik"]])
    assert ids[0].tolist() == case[f"{algorithm}_ids"]
    probabilities = case[f"log_cluster_prob_{algorithm}"]
    logs = upstream.log_cluster_probabilities(loglik, ids)[0]
    np.testing.assert_allclose(logs[: len(probabilities)], probabilities, **EXACT)
    assert (logs[len(probabilities) :] == -np.inf).all()
    entropy = snne.semantic_entropy(loglik, ids)
    np.testing.assert_allclose(entropy, case[f"se_{algorithm}"], **EXACT)
    discrete = snne.discrete_semantic_entropy(ids)
    np.testing.assert_allclose(discrete, case[f"dse_{algorithm}"], **EXACT)
    np.testing.assert_allclose(snne.predictive_entropy(loglik), case["ne"], **EXACT)
    if algorithm == "greedy":
        assert snne.num_semantic_sets(ids).tolist() == [case["num_sets_greedy"]]


@pytest.mark.parametrize("rule", ["strict", "loose"])
@pytest.mark.parametrize("case", named(CLUSTERING["nli_cases"], "n"))
def test_clusters_from_entailment(case: Case, rule: str) -> None:
    labels = np.array(case["nli_labels"])
    contradiction, neutral, entailment = labels == 0, labels == 1, labels == 2
    if rule == "strict":
        equivalent = entailment & entailment.T
    else:
        equivalent = ~(contradiction | contradiction.T) & ~(neutral & neutral.T)
    for algorithm in ("greedy", "dfs"):
        assert ids_of(equivalent, algorithm) == case[f"ids_{rule}_{algorithm}"]


def test_log_likelihoods_at_which_upstream_underflows() -> None:
    loglik, ids = np.array([[-1000.0, -1000.0]]), np.array([[0, 1]])
    np.testing.assert_allclose(snne.semantic_entropy(loglik, ids), np.log(2), **EXACT)
    logs = upstream.log_cluster_probabilities(loglik, ids)
    np.testing.assert_allclose(logs, -np.log(2) * np.ones((1, 2)), **EXACT)


# -- evaluation ------------------------------------------------------------------------------


def tied_orders(uncertainty: FloatArray, quality: FloatArray, metric: str) -> tuple[float, float]:
    """Smallest and largest value over the orders of tied items; each order is strict."""
    values = []
    for sign in (1, -1):
        order = np.lexsort((sign * quality, uncertainty))
        rank = np.empty(len(order))
        rank[order] = np.arange(len(order))
        values.append(ranking.evaluate(rank, quality)[metric])
    return min(values), max(values)


def assert_metric(
    value: float, golden: Any, uncertainty: FloatArray, quality: FloatArray, key: str
) -> None:
    """Equal without ties; with them upstream has one order of many and we have the mean."""
    if isinstance(golden, dict) or np.isnan(number(golden)):
        assert np.isnan(value)
        return
    if key == "auroc" or len(np.unique(uncertainty)) == len(uncertainty):
        np.testing.assert_allclose(value, golden, **EXACT)
        return
    lowest, highest = tied_orders(uncertainty, quality, key)
    assert lowest - 1e-12 <= golden <= highest + 1e-12
    assert lowest - 1e-12 <= value <= highest + 1e-12


@pytest.mark.parametrize("metric", ["auroc", "auarc", "prr_area"])
@pytest.mark.parametrize("case", named(METRICS["cases"], "name"))
def test_metrics_of_the_official_code(case: Case, metric: str) -> None:
    uncertainty = np.array([number(value) for value in case["uncertainty"]])
    quality = np.array([number(value) for value in case["accuracy"]])
    key = {"auroc": "auroc_of_falseness", "auarc": "auarc", "prr_area": "prr_upstream_aucpr"}
    golden = case[key[metric]]
    if metric == "auroc" and not np.isfinite(uncertainty).all():
        pytest.skip("scikit-learn refuses scores that are not finite")
    value = ranking.evaluate(uncertainty, quality)[metric]
    assert_metric(value, golden, uncertainty, quality, metric)


@pytest.mark.parametrize("case", named(METRICS["cases"], "name"))
def test_a_constant_score_is_chance_whatever_the_sorting_does(case: Case) -> None:
    """Upstream takes the order of the file for the order of the score."""
    quality = np.array([number(value) for value in case["accuracy"]])
    if len(quality) < 2 or quality.min() == quality.max():
        pytest.skip("nothing to rank")
    values = ranking.evaluate(np.zeros(len(quality)), quality)
    scaled = (quality - quality.min()) / (quality.max() - quality.min())
    assert values["prr"] == pytest.approx(0, abs=1e-12)
    assert values["prr_area"] == pytest.approx(scaled.mean())
    assert values["auarc"] == pytest.approx(quality.mean())
    if case["is_binary"]:
        assert values["auroc"] == 0.5


@pytest.mark.parametrize("case", named(POLYGRAPH["metrics"], "name"))
def test_metrics_of_lm_polygraph(case: Case) -> None:
    """Their random baseline is a mean over 1,000 shuffles; ours is its expectation, the mean."""
    uncertainty = np.array([number(value) for value in case["uncertainty"]])
    quality = np.array([number(value) for value in case["quality"]])
    values = ranking.evaluate(uncertainty, quality)
    oracle = ranking.evaluate(-quality, quality)
    low, high = quality.min(), quality.max()
    chance = (quality.mean() - low) / (high - low) if high > low else 0.5
    raw, best = number(case["prr_raw"]), number(case["prr_raw_oracle"])

    assert_metric(values["prr_area"], raw, uncertainty, quality, "prr_area")
    np.testing.assert_allclose(oracle["prr_area"], best, **EXACT)
    assert case["prr_raw_random"] == pytest.approx(chance, abs=0.03)
    if best - chance > 1e-12 and len(np.unique(uncertainty)) == len(uncertainty):
        np.testing.assert_allclose(values["prr"], (raw - chance) / (best - chance), **EXACT)
        np.testing.assert_allclose(oracle["prr"], 1.0, **EXACT)
    if "roc_auc_of_falseness" in case:
        assert_metric(values["auroc"], case["roc_auc_of_falseness"], uncertainty, quality, "auroc")
