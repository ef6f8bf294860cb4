"""Two-stage verification against the derived examples."""

from __future__ import annotations

import numpy as np
import pytest

from methods.score_hallucination.scorers import two_stage
from tests.methods.score_hallucination import upstream
from tests.methods.score_hallucination.golden import assert_same, golden, number

FILE = golden("two_stage_derived")
CALIBRATION = FILE["calibration"]
S1, S2, Y = (number(CALIBRATION[key]) for key in ("s1", "s2", "y"))


@pytest.mark.parametrize("case", FILE["score_cases"], ids=lambda c: f"m={c['m']}")
def test_distances_and_mean_embeddings(case: dict) -> None:
    own, cross, other = (
        number(case[key])[None]
        for key in ("P_self", "P_cross_target_to_verifier", "P_verifier_self")
    )
    assert_same(two_stage.mpd_self(own)[0], case["mpd_self_all"])
    assert_same(two_stage.mpd_self(own, include_self=False)[0], case["mpd_self_offdiag"])
    assert_same(two_stage.mpd_cross(cross)[0], case["mpd_cross"])
    geometry = upstream.mean_embeddings(own, cross, other)
    assert_same(geometry.target[0], case["kme_target_norm2"])
    assert_same(geometry.inner[0], case["kme_inner"])
    assert_same(geometry.verifier[0], case["kme_verifier_norm2"])
    assert_same(geometry.mmd2[0], case["mmd2"])
    for weight, expected in case["combined"].items():
        mixed = two_stage.mixture(
            two_stage.mpd_self(own), two_stage.mpd_cross(cross), float(weight)
        )
        assert_same(mixed[0], expected)


@pytest.mark.parametrize("case", CALIBRATION["bands"], ids=lambda c: f"{c['t1']:.3f}-{c['p']}")
def test_bands_and_decisions(case: dict) -> None:
    band = two_stage.band(S1, case["t1"], case["p"], case["t2"])
    assert band.upper == float(case["t_star"])
    assert two_stage.asked(S1, band).sum() == case["escalated"]
    assert_same(upstream.realised_budget(S1, band), case["escalated"] / len(S1))
    decision = two_stage.decide(S1, S2, band)
    assert decision.astype(int).tolist() == case["decision"]
    wrong = Y == 1
    counts = [
        (decision & wrong).sum(),
        (decision & ~wrong).sum(),
        (~decision & wrong).sum(),
        (~decision & ~wrong).sum(),
    ]
    assert counts == [case[key] for key in ("tp", "fp", "fn", "tn")]


def test_no_budget_asks_nothing_even_on_exact_ties() -> None:
    band = two_stage.band(np.full(5, 0.3), 0.3, 0.0, 0.5)
    assert upstream.realised_budget(np.full(5, 0.3), band) == 0
    unknown = np.full(5, np.nan)
    assert two_stage.decide(np.full(5, 0.3), unknown, band).all()


def test_the_full_budget_asks_for_everything_from_the_threshold_up() -> None:
    s1 = np.array([0.1, 0.3, 0.3, 0.9])
    band = two_stage.band(s1, 0.3, 1.0, 0.5)
    assert two_stage.asked(s1, band).tolist() == [False, True, True, True]


def test_the_rank_score_keeps_the_order_of_the_cascade() -> None:
    band = two_stage.band(S1, 0.3, 0.4, 0.45)
    rank = two_stage.rank_score(S1, S2, band)
    inside = two_stage.asked(S1, band)
    below, above = band.lower > S1, band.upper < S1
    assert rank[below].max() < rank[inside].min() <= rank[inside].max() < rank[above].min()
    assert (np.argsort(rank[inside]) == np.argsort(S2[inside])).all()
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        two_stage.rank_score(S1 * 2, S2, band)


def test_a_fitted_band_decides_no_worse_than_any_of_the_given_ones() -> None:
    for case in CALIBRATION["bands"]:
        fitted = two_stage.fit_band(S1, S2, Y, case["p"])
        decision = two_stage.decide(S1, S2, fitted)
        gain = decision[Y == 1].mean() - decision[Y == 0].mean()
        given = np.array(case["decision"])
        assert gain >= given[Y == 1].mean() - given[Y == 0].mean() - 1e-12


def test_a_budget_is_a_share_and_calibration_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="budget"):
        two_stage.band(S1, 0.3, 1.5, 0.5)
    with pytest.raises(ValueError, match="hallucinated and right"):
        two_stage.fit_band(S1, S2, np.ones_like(Y), 0.2)
    assert_same(two_stage.relative_cost(0.2, 70, 7), 2.0)
