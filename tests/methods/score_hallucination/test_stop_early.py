"""Sequential sampling: answers are drawn in rounds until the verdict is clear."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from methods.errors import JobError
from methods.inference import openai_http
from methods.inference.model_registry import Models, declarations
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.answers.early_stopping import decided, wilson
from methods.score_hallucination.result import Result
from methods.score_hallucination.schema.early_stopping import BY_LOGPROBS, BY_SAMPLES, StopEarly
from methods.score_hallucination.schema.options import ScorerName
from methods.score_hallucination.scoring.pipeline import SCORERS, Answers, Options, score
from methods.score_hallucination.spec import Spec
from tests.toys.fake_llm import FakeLLM, asked, serving
from tests.toys.tiny_models import tiny_llama

ASKED = [{"id": f"q{k}", "prompt": f"prompt {k}"} for k in range(9)]
RULE = {"threshold": 0.8, "level": 0.8}


class Streams(FakeLLM):
    """Every prompt has its own stream of answers: the further down, the more they differ."""

    def __init__(self) -> None:
        super().__init__()
        chance = random.Random(4)
        self.streams = {
            f"prompt {k}": [f"answer {chance.randrange(1 + k)}" for _ in range(10)]
            for k in range(len(ASKED))
        }
        self.taken: Counter[str] = Counter()
        self.say = self._next

    def _next(self, body: dict[str, Any]) -> list[str]:
        prompt, n = asked(body), body["n"]
        if body["temperature"] == 0:
            return ["greedy"]
        start = self.taken[prompt]
        self.taken[prompt] += n
        return self.streams[prompt][start : start + n]


@pytest.fixture
def llm() -> Streams:
    return Streams()


@pytest.fixture
def models(llm: Streams, monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    monkeypatch.setattr(openai_http, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(openai_http, "_PATIENCE_SECONDS", 0.1)
    with serving(llm) as url:
        yield Models(declarations({"fake": {"base_url": url, "max_in_flight": 1}}))


def run(folder: Path, models: Models, rule: dict[str, Any], **sampler: Any) -> Result:
    drawing = {"model": "fake", "greedy_answer": False, "stop_early": rule, **sampler}
    spec = Spec.model_validate({"items": ASKED, "sampler": drawing, "scorers": ["snne"]})
    return job.run(spec, LocalContext(folder, spec, models=models))


def by_rule(stream: list[str], rule: StopEarly, n: int = 10) -> int:
    """How many answers the rule takes, by definition."""
    for m in range(rule.min_n, n, rule.step):
        [found] = score([Answers(stream[:m])], Options(scorers=(rule.scorer or "snne",)))
        low, high = wilson(found.confidences[rule.scorer or "snne"], m, rule.level)
        if rule.threshold < low or rule.threshold > high:
            return m
    return n


# -- the rule --------------------------------------------------------------------------------


@pytest.mark.parametrize(("yes", "n"), [(0, 4), (4, 4), (3, 10), (50, 100)])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_the_interval_is_that_of_scipy(yes: int, n: int, level: float) -> None:
    expected = binomtest(yes, n).proportion_ci(level, "wilson")
    assert wilson(yes / n, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.floats(0, 1), st.integers(2, 100), st.floats(0.01, 0.99), st.floats(0.5, 0.99))
def test_a_decision_is_an_interval_on_one_side(
    confidence: float, n: int, threshold: float, level: float
) -> None:
    low, high = wilson(confidence, n, level)
    assert -1e-9 <= low <= confidence + 1e-9
    assert confidence - 1e-9 <= high <= 1 + 1e-9
    rule = StopEarly(threshold=threshold, level=level)
    assert decided(confidence, n, rule) == (not low <= threshold <= high)
    assert not decided(None, n, rule)


def test_the_scorers_that_may_decide_are_those_with_a_confidence_from_samples() -> None:
    from_samples = {"similarity", "clusters", "texts", "logprobs"}
    ranking = {"sentence_sar", "snne_full", "snne_num"}
    found = {name for name, s in SCORERS.items() if s.needs and s.needs <= from_samples} - ranking
    assert set(BY_SAMPLES) == found
    assert set(BY_LOGPROBS) == {name for name in found if "logprobs" in SCORERS[name].needs}
    texts = [Answers(["a", "b", "a"], [[-1.0]] * 3)]
    [scored] = score(texts, Options(scorers=(*BY_SAMPLES, *ranking)))
    assert set(scored.confidences) == set(BY_SAMPLES)


# -- a job -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("min_n", "step"), [(4, 2), (2, 1), (3, 5), (10, 2)])
def test_answers_are_drawn_until_the_rule_is_content(
    tmp_path: Path, models: Models, llm: Streams, min_n: int, step: int
) -> None:
    rule = {**RULE, "min_n": min_n, "step": step}
    result = run(tmp_path, models, rule)
    expected = [by_rule(llm.streams[q["prompt"]], StopEarly.model_validate(rule)) for q in ASKED]
    assert result.items is not None
    assert [item.n for item in result.items] == expected
    assert [llm.taken[q["prompt"]] for q in ASKED] == expected
    assert result.sampling is not None
    assert result.sampling.stop_early is not None
    assert result.sampling.stop_early.model_dump() == {
        "scorer": "snne",
        "n_stopped": sum(n < 10 for n in expected),
        "answers_drawn": sum(expected),
        "answers_saved": 90 - sum(expected),
        "share_saved": pytest.approx(1 - sum(expected) / 90),
    }
    rounds = [1 + -(-(n - min_n) // step) for n in expected]
    assert result.sampling.requests == len(llm.requests) == sum(rounds)
    assert result.sampling.completion_tokens == 2 * sum(expected)


def test_some_items_stop_and_some_do_not(tmp_path: Path, models: Models) -> None:
    """Or the other tests would show nothing."""
    result = run(tmp_path, models, RULE)
    assert result.items is not None
    assert len({item.n for item in result.items}) > 2


def test_the_last_round_draws_what_is_left(tmp_path: Path, models: Models, llm: Streams) -> None:
    run(tmp_path, models, {**RULE, "step": 4, "level": 0.999999}, n=7)
    assert [request["n"] for request in llm.requests] == [4] * 9 + [3] * 9


def test_every_round_has_its_own_seed(tmp_path: Path, models: Models, llm: Streams) -> None:
    run(tmp_path, models, {**RULE, "level": 0.999999}, seed=7)
    rounds = [llm.requests[start : start + 9] for start in range(0, 36, 9)]
    seeds = [{request["seed"] for request in part} for part in rounds]
    assert seeds[0] == {7}
    assert all(len(part) == 1 for part in seeds)
    values = sorted(seed for part in seeds for seed in part)
    # vLLM draws the k-th answer of a request with seed + k.
    assert all(b - a > 10 for a, b in pairwise(values))


@pytest.mark.parametrize("died_after", [3, 10, 14])
def test_a_resumed_job_decides_the_same(
    tmp_path: Path, models: Models, llm: Streams, died_after: int
) -> None:
    llm.dead_after = died_after
    with pytest.raises(JobError):
        run(tmp_path / "a", models, RULE)
    llm.dead_after = None
    resumed = run(tmp_path / "a", models, RULE)
    answered, taken = llm.answered, dict(llm.taken)
    llm.taken.clear()
    whole = run(tmp_path / "b", models, RULE)
    assert resumed.items == whole.items
    assert taken == dict(llm.taken)
    assert resumed.sampling is not None
    assert whole.sampling is not None
    assert answered == resumed.sampling.requests == whole.sampling.requests
    assert resumed.sampling.stop_early == whole.sampling.stop_early


def test_what_was_drawn_is_a_valid_input(tmp_path: Path, models: Models) -> None:
    first = run(tmp_path, models, RULE, greedy_answer=True)
    spec = Spec.model_validate({"input": "artifacts/responses.jsonl", "scorers": ["snne"]})
    again = job.run(spec, LocalContext(tmp_path, spec, models=models))
    assert again.items == first.items
    assert again.items is not None
    assert {item.answer for item in again.items} == {"greedy"}


def test_weights_of_a_folder_draw_other_answers_in_every_round(tmp_path: Path) -> None:
    folder = str(tiny_llama(tmp_path / "tiny"))
    rule = {"threshold": 0.5, "level": 0.9999999, "min_n": 2, "step": 2}
    models = Models(any_path=True)
    result = run(tmp_path / "a", models, rule, model=folder, n=6, max_tokens=6, seed=1)
    assert result.items is not None
    assert [item.n for item in result.items] == [6] * 9
    assert min(item.n_unique for item in result.items) > 2
    again = run(tmp_path / "b", models, rule, model=folder, n=6, max_tokens=6, seed=1)
    assert again.items == result.items


SAMPLER = {"model": "fake", "n": 6}


@pytest.mark.parametrize(
    ("spec", "sampler", "rule", "word"),
    [
        ({}, {}, {"threshold": 1}, "less than 1"),
        ({}, {}, {"threshold": 0.5, "min_n": 1}, "greater than or equal to 2"),
        ({}, {}, {"threshold": 0.5, "min_n": 7}, "stop_early/min_n: 7 is more than n, 6"),
        ({}, {}, {"threshold": 0.5, "level": 1}, "less than 1"),
        ({}, {}, {"threshold": 0.5, "scorer": "msp"}, "msp has no confidence from the samples"),
        ({}, {}, {"threshold": 0.5, "scorer": "snne_num"}, "snne_num has no confidence"),
        ({}, {}, {"threshold": 0.5, "scorer": "p_true"}, "p_true has no confidence"),
        ({"scorers": ["msp", "snne"]}, {}, {"threshold": 0.5}, "msp has no confidence"),
        ({}, {"logprobs": False}, {"threshold": 0.5, "scorer": "wsnne"}, "wsnne needs the sampler"),
        ({"similarity": {"kind": "precomputed"}}, {}, {"threshold": 0.5}, "no precomputed"),
    ],
)
def test_a_rule_that_cannot_decide_is_refused(
    spec: Any, sampler: Any, rule: Any, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        Spec.model_validate(
            {"items": ASKED, **spec, "sampler": {**SAMPLER, **sampler, "stop_early": rule}}
        )


@pytest.mark.parametrize("scorer", [name for name in get_args(ScorerName) if name in BY_SAMPLES])
def test_every_other_scorer_may_decide(tmp_path: Path, models: Models, scorer: str) -> None:
    result = run(tmp_path, models, {**RULE, "scorer": scorer})
    assert result.sampling is not None
    assert result.sampling.stop_early is not None
    assert result.sampling.stop_early.scorer == scorer
    assert result.sampling.stop_early.answers_drawn >= 4 * len(ASKED)
