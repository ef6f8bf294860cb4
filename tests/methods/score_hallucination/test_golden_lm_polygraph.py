"""Estimators, metrics and normalisers against LM-Polygraph 0.7.0."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from methods.score_hallucination.calibration import fits
from methods.score_hallucination.evaluation import ranking, selective_prediction
from methods.score_hallucination.scorers import graph, kernel_language_entropy, sar, snne, whitebox
from methods.score_hallucination.similarity import clustering, equivalence, lexical, nli, rouge_l
from methods.score_hallucination.similarity.tokenize import tokenize_paper
from tests.methods.score_hallucination import normalizers, semantic_classes, upstream
from tests.methods.score_hallucination.golden import assert_same, golden, number

CASES = golden("lm_polygraph_estimators")["cases"]
METRICS = golden("lm_polygraph_metrics")["metrics"]
NORMALIZERS = golden("lm_polygraph_metrics")["normalizers"]


def _name(case: dict) -> str:
    return f"{case['n']}-{case['kind']}"


def _probabilities(case: dict) -> np.ndarray:
    return softmax(number(case["nli_logits_contra_neutral_entail"]), axis=-1)[None]


def _first(texts: list[str]) -> np.ndarray:
    keep = np.zeros((1, len(texts)), dtype=bool)
    keep[0, np.unique(texts, return_index=True)[1]] = True
    return keep


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_graph_estimators(case: dict) -> None:
    p, out = _probabilities(case), case["out"]
    matrices = {
        # The diagonal there is the model's verdict on a text and itself.
        "entail": nli.similarity(p, "strict", unit_diagonal=False),
        "contra": nli.similarity(p, "noncontradiction", unit_diagonal=False),
        "jaccard": _jaccard(case["sample_texts"])[None],
    }
    for kind, s in matrices.items():
        assert_same(graph.eigv_laplacian(s)[0], out[f"EigValLaplacian_{kind}"])
        assert_same(graph.degree_matrix(s)[0], out[f"DegMat_{kind}"])
        assert_same(graph.eccentricity(s)[0], out[f"Eccentricity_{kind}"])


def _jaccard(texts: list[str]) -> np.ndarray:
    distinct, where = rouge_l.unique_answers([texts], "paper")
    return lexical.jaccard(distinct, where, lambda t: t.lower().split(), "upstream")[0]


@pytest.mark.parametrize("case", [c for c in CASES if c["n"] > 1], ids=_name)
def test_lexical_similarity(case: dict) -> None:
    """The Porter stemmer of the original changes nothing among these texts; BLEU is not offered."""
    distinct, where = rouge_l.unique_answers([case["sample_texts"]], "paper")
    rouge_1 = lexical.token_f1(distinct, where, tokenize_paper, "upstream")[0][None]
    rouge = rouge_l.rouge_l(distinct, where, "paper")[0][None]
    out = case["out"]
    assert_same(snne.lexical_similarity(rouge_1)[0], out["LexicalSimilarity_rouge1"])
    assert_same(snne.lexical_similarity(rouge)[0], out["LexicalSimilarity_rougeL"])


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_semantic_entropies(case: dict) -> None:
    out, texts = case["out"], case["sample_texts"]
    classes = out["semantic_classes"]["sample_to_class"]
    ids = np.array([[classes[str(i)] for i in range(case["n"])]])
    mass = semantic_classes.class_logprob(number(case["sample_log_probs"])[None], ids)
    share = semantic_classes.class_frequency(ids)
    mean, direct = semantic_classes.mean_class_surprise, semantic_classes.direct_entropy
    assert_same(mean(mass)[0], out["SemanticEntropy_sum_mean"])
    assert_same(direct(mass, ids, "upstream")[0], out["SemanticEntropy_sum_direct"])
    assert_same(mean(share)[0], out["SemanticEntropy_frequency_mean"])
    assert_same(direct(share, ids, "upstream")[0], out["SemanticEntropy_frequency_direct"])
    assert_same(direct(share, ids)[0], out["SemanticEntropy_frequency_mean"])
    keep = np.zeros_like(ids, dtype=bool)
    for members in out["semantic_classes"]["class_to_sample"]:
        first = np.unique([texts[i] for i in members], return_index=True)[1]
        keep[0, np.array(members)[first]] = True
    unique = semantic_classes.class_logprob(number(case["sample_log_probs"])[None], ids, keep)
    assert_same(mean(unique)[0], out["SemanticEntropy_sum_mean_unique"])


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_nli_estimators(case: dict) -> None:
    p, out, n = _probabilities(case), case["out"], case["n"]
    weights = upstream.weights_from_probabilities(p)
    # Identical answers leave an entropy near 0, where only the absolute difference means anything.
    assert_same(
        kernel_language_entropy.kernel_language_entropy(weights)[0],
        out["KernelLanguageEntropy_t0.3_unscaled"],
    )
    scaled = kernel_language_entropy.kernel_language_entropy(weights, scaled=True)[0]
    luq = nli.luq(nli.similarity(p, "luq"))[0]
    if n == 1:
        assert out["KernelLanguageEntropy_t0.3_scaled"] == "-inf"
        assert np.isnan(scaled)
        assert np.isnan(luq)
    else:
        assert_same(scaled, out["KernelLanguageEntropy_t0.3_scaled"])
        assert_same(luq, out["LUQ"])
    sets = clustering.components(upstream.likelier_entailed(p))
    assert_same(snne.num_semantic_sets(sets)[0], out["NumSemSets"])
    ids = equivalence.first_match(equivalence.equivalent(equivalence.labels(p), "strict"))
    classes = out["semantic_classes"]["sample_to_class"]
    assert ids[0].tolist() == [classes[str(i)] for i in range(n)]
    assert_same(snne.discrete_semantic_entropy(ids)[0], out["SemanticEntropy_frequency_mean"])
    largest = np.bincount(ids[0]).max()
    assert_same(1 - largest / n, out["LabelProb"])


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_relevance_estimators(case: dict) -> None:
    out = case["out"]
    s = number(case["sample_sentence_similarity"])[None]
    tokens = whitebox.pad(case["sample_log_likelihoods"])[None]
    relevance = whitebox.pad(case["sample_token_similarity"])[None]
    assert_same(sar.sar(tokens, relevance, s)[0], out["SAR"])
    assert_same(sar.sentence_sar(number(case["sample_log_probs"])[None], s)[0], out["SentenceSAR"])
    greedy = number(case["greedy_log_likelihoods"])[None]
    relevance = number(case["greedy_token_similarity"])[None]
    assert_same(sar.token_sar(greedy, relevance)[0], out["TokenSAR"])
    to_samples = number(case["greedy_sentence_similarity"])[None]
    assert_same(whitebox.cocoa(whitebox.msp(greedy), to_samples)[0], out["CocoaMSP"])
    assert_same(whitebox.cocoa(whitebox.perplexity(greedy), to_samples)[0], out["CocoaPPL"])


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_white_box_estimators(case: dict) -> None:
    out = case["out"]
    greedy = number(case["greedy_log_likelihoods"])[None]
    tokens = whitebox.pad(case["sample_log_likelihoods"])[None]
    assert_same(whitebox.msp(greedy)[0], out["MaximumSequenceProbability"])
    assert_same(whitebox.perplexity(greedy)[0], out["Perplexity"])
    assert_same(whitebox.eigenscore(number(case["sample_embeddings"])[None])[0], out["EigenScore"])
    loglik = whitebox.mean_over_tokens(tokens)
    assert_same(snne.predictive_entropy(loglik)[0], out["MonteCarloNormalizedSequenceEntropy"])
    assert_same(
        snne.predictive_entropy(number(case["sample_log_probs"])[None])[0],
        out["MonteCarloSequenceEntropy"],
    )


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_semantic_density_counts_the_answer_itself(case: dict) -> None:
    """Row 0 of the NLI matrix is the answer against the samples; the original negates it."""
    tokens = case["sample_log_likelihoods"]
    lengths = np.array([len(row) for row in tokens])
    p = _probabilities(case)[0, 0]
    kernel = 1 - (p[:, 0] + p[:, 1] / 2)
    value = whitebox.semantic_density(
        (number(case["sample_log_probs"]) / lengths)[None],
        kernel[None],
        keep=_first(case["sample_texts"]),
        own_loglik=number([np.mean(case["greedy_log_likelihoods"])]),
    )
    assert_same(-value[0], case["out"]["SemanticDensity"])


@pytest.mark.parametrize("case", METRICS, ids=lambda case: case["name"])
def test_metrics(case: dict) -> None:
    uncertainty, quality = number(case["uncertainty"]), number(case["quality"])
    low, high = quality.min(), quality.max()
    scaled = (quality - low) / (high - low)
    assert_same(selective_prediction.risk_coverage_area(uncertainty, scaled), case["rcc_auc"])
    assert_same(selective_prediction.risk_coverage_area(-scaled, scaled), case["rcc_auc_oracle"])
    confidence = normalizers.min_max(uncertainty, uncertainty)
    assert_same(fits.calibration_errors(confidence, quality, 20)["ece"], case["ece_minmax"])
    values = ranking.evaluate(uncertainty, quality)
    assert_same(values["prr_area"], case["prr_raw"])
    if "roc_auc_of_falseness" in case:
        assert_same(values["auroc"], case["roc_auc_of_falseness"])
    # The original draws its random baseline (1000 orders); ours is the expectation over all.
    assert_same(values["prr"], case["prr_raw_normalized"], rtol=0, atol=0.05)


@pytest.mark.parametrize("case", NORMALIZERS, ids=lambda case: str(case["n"]))
def test_normalizers(case: dict) -> None:
    train, quality = number(case["train_uncertainty"]), number(case["train_quality"])
    test = number(case["test_uncertainty"])
    assert_same(normalizers.min_max(train, test), case["minmax"])
    assert_same(normalizers.quantile(train, test), case["quantile"])
    binned = normalizers.binned_quality(train, quality, test, 10, compat="upstream")
    assert_same(binned, case["binned_pcc_10"])
    assert_same(normalizers.isotonic_quality(train, quality, test), case["isotonic_pcc"])


def test_the_least_uncertain_belong_to_the_best_bin() -> None:
    train, quality = np.arange(20.0), np.linspace(1, 0, 20)
    below = np.array([-1.0, 0.0])
    assert_same(normalizers.binned_quality(train, quality, below), np.full(2, quality[:2].mean()))
    upstream = normalizers.binned_quality(train, quality, below, compat="upstream")
    assert (upstream < 0.1).all()
