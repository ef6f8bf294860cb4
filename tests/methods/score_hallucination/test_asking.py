"""Where only clusters and the judged answer matter, an NLI model is asked less, to the same end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from methods.inference.model_registry import ModelDeclaration
from methods.inference.nli import NLI, load_nli
from methods.score_hallucination.scoring.pairwise import RelateByNLI
from methods.score_hallucination.scoring.pipeline import Answers, JudgedAnswer, Options, score
from tests.toys.tiny_encoders import make_nli, texts

SCORERS = ("discrete_semantic_entropy", "num_semantic_sets", "noncontradiction", "selfcheck_nli")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_nli(tmp_path_factory.mktemp("nli"), ("contradiction", "neutral", "entailment"))


@pytest.fixture(scope="module")
def items() -> list[Answers]:
    """Ten answers drawn from eight texts, so that heads take back what equals an earlier answer."""
    drawn = texts(40 * 8, longest=4)
    places = np.random.default_rng(0).integers(8, size=(40, 10))
    return [
        Answers([drawn[8 * k + place] for place in row], judged=JudgedAnswer(drawn[8 * k]))
        for k, row in enumerate(places.tolist())
    ]


@pytest.mark.parametrize("rule", ["strict", "loose", "either"])
@pytest.mark.parametrize("algorithm", ["greedy", "first_match", "components"])
def test_less_is_asked_to_the_same_end(
    folder: str, items: list[Answers], rule: str, algorithm: str
) -> None:
    whole, part = load(folder), load(folder)
    options = Options(SCORERS, "nli", relate=RelateByNLI(whole), rule=rule, algorithm=algorithm)
    expected = score(items, replace(options, all_pairs=True))
    found = score(items, replace(options, relate=RelateByNLI(part)))
    clusters = [item.cluster_ids.max() + 1 for item in found]
    assert len(set(clusters)) > 2, "clusters of many sizes are compared"
    for one, other in zip(found, expected, strict=True):
        assert one.cluster_ids.tolist() == other.cluster_ids.tolist()
        assert one.values == pytest.approx(other.values, abs=1e-6)
        for cluster, place in enumerate(one.representatives[: one.cluster_ids.max() + 1]):
            assert one.cluster_ids[place] == cluster
    if algorithm == "components":
        assert part.cost.scored == whole.cost.scored
    else:
        assert part.cost.scored < whole.cost.scored


@pytest.mark.parametrize(
    ("scorers", "pairs"), [(("noncontradiction",), 5), (("num_semantic_sets",), 3), (("snne",), 6)]
)
def test_what_scorers_read_is_asked(folder: str, scorers: tuple[str, ...], pairs: int) -> None:
    engine = load(folder)
    # By this model w1 entails neither of the others, nor they each other.
    answers = Answers(["w1", "w2", "w2", "w4"], judged=JudgedAnswer("w2"))
    score([answers], Options(scorers, "nli", relate=RelateByNLI(engine), rule="strict"))
    assert engine.cost.scored == pairs


def load(folder: str) -> NLI:
    return load_nli(ModelDeclaration(path=folder))
