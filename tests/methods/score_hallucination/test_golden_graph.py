"""Graph scores and kernel language entropy against the SNNE code."""

from __future__ import annotations

import numpy as np
import pytest

from methods.score_hallucination.scorers import graph, kernel_language_entropy, snne
from methods.score_hallucination.similarity import equivalence, nli
from tests.methods.score_hallucination import upstream
from tests.methods.score_hallucination.golden import assert_same, golden, number, raised

GRAPH = golden("snne_graph")
KLE = golden("snne_kle")
ASYMMETRIC = {"asym_n5"}


@pytest.mark.parametrize("case", GRAPH["cases"], ids=lambda case: case["matrix"])
def test_graph_scores(case: dict) -> None:
    s = number(GRAPH["matrices"][case["matrix"]])[None]
    # The original hands an asymmetric matrix to LAPACK, which reads one triangle of it.
    compat = "upstream" if case["matrix"] in ASYMMETRIC else None
    assert_same(upstream.degree_unscaled(s)[0], case["deg"][0])
    assert_same(
        -snne.lexical_similarity(s)[0] if s.shape[-1] > 1 else 1.0, case["lexsim_mean_offdiag"]
    )
    assert_same(nli.luq_pair(s, compat="upstream")[0], case["luq_pair"][0])
    if raised(case["sum_eigv_clip0"]):
        assert np.isnan(graph.eigv_laplacian(s)[0])
        assert np.isnan(graph.eccentricity(s)[0])
        return
    assert_same(graph.eigv_laplacian(s, compat)[0], case["sum_eigv_clip0"])
    assert_same(graph.eccentricity(s, 0.9, compat)[0], case["ecc_thr0.9"])
    assert_same(graph.eccentricity(s, 0.5, compat)[0], case["ecc_thr0.5"])
    assert_same(graph.eccentricity(s, None, compat)[0], case["ecc_thrNone"])
    laplacian, _ = graph.normalized_laplacian(s, compat)
    assert_same(
        np.sort(1 - np.linalg.eigvalsh(laplacian)[0]),
        np.sort(number(case["eigvals_1_minus_laplacian"])),
    )


def test_asymmetric_matrices_are_averaged_with_their_transpose() -> None:
    s = number(GRAPH["matrices"]["asym_n5"])[None]
    both = (s + s.transpose(0, 2, 1)) / 2
    assert_same(graph.eigv_laplacian(s), graph.eigv_laplacian(both))
    assert_same(graph.eccentricity(s), graph.eccentricity(both))


def test_singular_matrices_have_a_value_and_negative_degrees_have_none() -> None:
    """Where the original raises LinAlgError, an isolated answer is a meaning of its own."""
    edge = {case["name"]: number(case["matrix"])[None] for case in GRAPH["edge"][:2]}
    assert_same(graph.eigv_laplacian(edge["zero_row"])[0], 2.0)
    assert_same(graph.eccentricity(edge["zero_row"])[0], 1.0)
    assert np.isnan(graph.eigv_laplacian(edge["negative_degree"])[0])


def test_luq_pair_leaves_its_input_alone() -> None:
    s = number(GRAPH["edge"][2]["matrix_before"])
    nli.luq_pair(s)
    assert_same(s, GRAPH["edge"][2]["matrix_before"])


@pytest.mark.parametrize(
    "case", KLE["kernel_cases"], ids=lambda case: f"{case['n']}-{case['kind']}"
)
def test_kernels(case: dict) -> None:
    w = number(case["weights"])[None]
    for key, expected in case.items():
        if key.startswith(("heat_t", "heatn_t")):
            t = float(key.split("_t")[1].split("_")[0])
            value = kernel_language_entropy.kernel_language_entropy(
                w, t=t, normalized=key.startswith("heatn"), scaled=key.endswith("scaled")
            )[0]
            if expected == "-inf":
                assert np.isnan(value), "one answer has no scale"
            else:
                assert_same(value, expected)
        elif key.startswith("matern"):
            kappa, nu = (float(part[1:].lstrip("u")) for part in key.split("_")[1:])
            value = kernel_language_entropy.kernel_language_entropy(
                w, "matern", nu=nu, kappa=kappa
            )[0]
            assert_same(value, expected)
    if "heat_kernel_t0.3" not in case:
        return
    heat = kernel_language_entropy.heat_kernel(kernel_language_entropy.laplacian(w), 0.3)
    assert_same(heat[0], case["heat_kernel_t0.3"])
    assert_same(
        kernel_language_entropy.unit_trace(heat)[0], case["heat_kernel_t0.3_unit_diag_over_n"]
    )


def _weights(edges: list, n: int) -> np.ndarray:
    matrix = np.zeros((n, n))
    for i, j, weight in edges:
        matrix[i, j] = matrix[j, i] = weight
    return matrix


@pytest.mark.parametrize("case", KLE["graph_cases"], ids=lambda case: str(case["n"]))
def test_entailment_graphs(case: dict) -> None:
    n = case["n"]
    labels = np.array(case["nli_labels"])[None]
    weights = kernel_language_entropy.weights_from_labels(labels)
    assert_same(weights[0], _weights(case["manual_weights"], n))
    assert_same(
        upstream.weights_from_confidence(number(case["nli_confidence"]))[None][0],
        _weights(case["deberta_weights"], n),
    )
    ids = equivalence.first_match(equivalence.equivalent(labels, "strict"))
    assert ids[0].tolist() == case["semantic_ids_strict"]
    loglik = number(case["length_norm_loglik"])[None]
    assert_same(snne.semantic_entropy(loglik, ids)[0], case["se"])
    for key, expected in case["kle_heat_manual"].items():
        value = kernel_language_entropy.kernel_language_entropy(weights, t=float(key[2:]))[0]
        assert_same(value, expected)
    for key, expected in case["kle_full"].items():
        parts = dict(part.split("=") for part in key.split("_") if "=" in part)
        value = kernel_language_entropy.kernel_language_entropy_full(
            weights,
            loglik,
            ids,
            alpha=float(key.split("alpha_")[1]),
            kernel="matern" if "matern" in key else "heat",
            t=float(parts.get("t", 0.3)),
            nu=float(parts.get("nu", 1)),
            kappa=float(parts.get("kappa", 1)),
            compat="upstream",
        )[0]
        # The original builds the semantic blocks in float32.
        assert_same(value, expected, rtol=1e-7)


@pytest.mark.parametrize("case", KLE["graph_cases"], ids=lambda case: str(case["n"]))
def test_the_unweighted_graph_is_complete_upstream_only(case: dict) -> None:
    labels = np.array(case["nli_labels"])[None]
    complete = kernel_language_entropy.weights_from_labels(labels, edges=True, compat="upstream")
    for key, expected in case["kle_heat_unweighted"].items():
        assert_same(
            kernel_language_entropy.kernel_language_entropy(complete, t=float(key[2:]))[0], expected
        )
    assert_same(complete[0], _weights([[*e, 1] for e in case["unweighted_edges"]], case["n"]))
    ours = kernel_language_entropy.weights_from_labels(labels, edges=True)
    assert_same(ours, kernel_language_entropy.weights_from_labels(labels) >= 1.5)


@pytest.mark.parametrize("case", KLE["graph_cases"], ids=lambda case: str(case["n"]))
def test_full_kernel_language_entropy_keeps_its_weights(case: dict) -> None:
    labels = np.array(case["nli_labels"])[None]
    weights = kernel_language_entropy.weights_from_labels(labels)
    loglik, ids = number(case["length_norm_loglik"])[None], np.array(case["semantic_ids_strict"])
    whole = kernel_language_entropy.kernel_language_entropy_full(
        weights, loglik, ids[None], alpha=1.0
    )
    assert_same(whole, kernel_language_entropy.kernel_language_entropy(weights))
    none = kernel_language_entropy.kernel_language_entropy_full(
        weights, loglik, ids[None], alpha=0.0
    )
    assert_same(none[0], case["se"])
