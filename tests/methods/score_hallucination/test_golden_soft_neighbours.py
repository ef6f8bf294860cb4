"""SNNE and its cluster variants against the SNNE code."""

from __future__ import annotations

import numpy as np
import pytest

from methods.score_hallucination.scorers import snne, soft_neighbours
from tests.methods.score_hallucination.golden import assert_same, golden, number

FILE = golden("snne_core")


@pytest.mark.parametrize(
    "case",
    FILE["cases"],
    ids=lambda c: f"{c['matrix']}-{c['variant']}-{c['temperature']}-{c['exclude_diagonal']}",
)
def test_variants(case: dict) -> None:
    s = number(FILE["matrices"][case["matrix"]])[None]
    ids = np.array(FILE["labels"][case["matrix"]])[None]
    loglik = np.log(number(FILE["weights"][case["matrix"]]))[None]
    tau, include_self = case["temperature"], not case["exclude_diagonal"]
    if case["variant"] == "only_denom":
        found = snne.snne(s, tau, include_self)
        weighted = snne.wsnne(s, loglik, tau, include_self)
        rtol = 1e-9
    else:
        arguments = (s, ids, case["variant"], tau, include_self)
        found = soft_neighbours.soft_neighbour(*arguments)
        weighted = soft_neighbours.soft_neighbour(*arguments, loglik)
        # The original takes ln(epsilon) and e^(1/tau) in float32.
        rtol = 1e-6
    assert_same(found[0], case["out_f64"], rtol=rtol)
    if "out_weighted_f64" in case:
        assert_same(weighted[0], case["out_weighted_f64"], rtol=rtol)


def test_the_full_variant_is_0_when_all_answers_are_in_one_cluster() -> None:
    s, ids = np.full((1, 3, 3), 0.4), np.zeros((1, 3), dtype=np.int64)
    assert_same(soft_neighbours.soft_neighbour(s, ids), [0.0])
    apart = soft_neighbours.soft_neighbour(s, np.arange(3)[None])
    assert_same(apart, [np.log(3)])
