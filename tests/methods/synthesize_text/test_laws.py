"""Laws that hold whatever the numbers are."""

from __future__ import annotations

import json
import math
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from methods.errors import JobError
from methods.inference.model_registry import ModelDeclaration
from methods.local import LocalContext
from methods.synthesize_text.child_jobs import DrawsPart, Generator
from methods.synthesize_text.gradients import accountant
from methods.synthesize_text.gradients.factors import (
    Factors,
    Target,
    distances,
    inner,
    set_distance,
    squares,
)
from methods.synthesize_text.gradients.herding import herd, nearest
from methods.synthesize_text.gradients.label_model import LabelModel, load_on_cpu
from methods.synthesize_text.gradients.matching import MatchTarget, group_distances
from methods.synthesize_text.gradients.stored_factors import pack_target, read_target
from methods.synthesize_text.gradients.target import _basis
from methods.synthesize_text.optimisation.projection import Projection
from methods.synthesize_text.outcome import comparing
from methods.synthesize_text.texts import diversity, filters
from methods.synthesize_text.texts.drawing import ended
from methods.synthesize_text.texts.drawing import run as draw
from methods.synthesize_text.texts.overlap import RealTexts, likeness, words
from methods.synthesize_text.texts.template import Template
from tests.methods.synthesize_text.grammar import TEMPLATE, model_folder, sentences

SIZES = st.integers(2, 7)
SEEDS = st.integers(0, 2**16)


def factors(n: int, seed: int, outputs: int = 9, width: int = 5) -> Factors:
    rng = np.random.default_rng(seed)
    a = rng.dirichlet(np.ones(outputs), n)
    a[:, 0] -= 1
    return Factors.of(a, rng.normal(size=(n, width)) + 0.3)


def explicit(x: Factors, weights: np.ndarray | None = None) -> np.ndarray:
    given = np.full(len(x), 1 / len(x)) if weights is None else weights
    return np.einsum("i,iv,id->vd", given, x.a, x.h)


def cosine_distance(x: np.ndarray, y: np.ndarray) -> float:
    return float(1 - (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y))


@given(SIZES, SIZES, SEEDS)
def test_closed_form_is_that_of_the_matrices(n: int, m: int, seed: int) -> None:
    x, y = factors(n, seed), factors(m, seed + 1)
    weights = np.random.default_rng(seed).normal(size=m)
    for target, matrix in ((Target(y), explicit(y)), (Target(y, weights), explicit(y, weights))):
        assert set_distance(x, target) == pytest.approx(
            cosine_distance(explicit(x), matrix), abs=1e-10
        )
        alone = [cosine_distance(explicit(x.rows(np.array([k]))), matrix) for k in range(n)]
        np.testing.assert_allclose(distances(x, target), alone, atol=1e-10)
    both = (
        cosine_distance(explicit(x), explicit(y))
        + cosine_distance(x.a.mean(axis=0), y.a.mean(axis=0))
    ) / 2
    assert set_distance(x, Target(y), bias=True) == pytest.approx(both, abs=1e-10)
    found = group_distances(
        torch.tensor(x.a, dtype=torch.float32)[None],
        torch.tensor(x.h, dtype=torch.float32)[None],
        MatchTarget.of(Target(y), "cpu"),
        bias=True,
    )
    assert float(found) == pytest.approx(both, abs=1e-5)


@given(SIZES, SIZES, SEEDS)
def test_a_distance_knows_no_order_and_no_copies(n: int, m: int, seed: int) -> None:
    x, target = factors(n, seed), Target(factors(m, seed + 1))
    value = set_distance(x, target)
    assert 0 <= value <= 2
    order = np.random.default_rng(seed).permutation(n)
    assert set_distance(x.rows(order), target) == pytest.approx(value, abs=1e-12)
    twice = x.rows(np.tile(np.arange(n), 2))
    assert set_distance(twice, target) == pytest.approx(value, abs=1e-12)
    assert set_distance(target.factors, target) == pytest.approx(0, abs=1e-12)


@given(SIZES, SEEDS)
def test_sparse_factors_with_the_rest_are_the_dense_ones(n: int, seed: int) -> None:
    x, y = factors(n, seed, outputs=40), factors(n, seed + 1, outputs=40)

    def largest(given: Factors, kept: int) -> Factors:
        order = np.argsort(-np.abs(given.a), axis=1)[:, :kept]
        a = np.zeros_like(given.a)
        np.put_along_axis(a, order, np.take_along_axis(given.a, order, axis=1), axis=1)
        return Factors(sparse.csr_matrix(a), given.h, (given.a**2).sum(axis=1) - (a**2).sum(axis=1))

    whole = set_distance(x, Target(y))
    assert set_distance(largest(x, 40), Target(largest(y, 40))) == pytest.approx(whole, abs=1e-12)
    np.testing.assert_allclose(squares(largest(x, 5))[1], squares(x)[1])
    target = Target(largest(y, 25))
    again = read_target(BytesIO(pack_target(target)))
    assert set_distance(largest(x, 25), again) == set_distance(largest(x, 25), target)


@given(SIZES, SEEDS)
def test_what_a_sparse_set_leaves_out_does_not_part_it_from_itself(n: int, seed: int) -> None:
    x = factors(n, seed, outputs=40)
    order = np.argsort(-np.abs(x.a), axis=1)[:, :6]
    a = np.zeros_like(x.a)
    np.put_along_axis(a, order, np.take_along_axis(x.a, order, axis=1), axis=1)
    cut = Factors(sparse.csr_matrix(a), x.h, (x.a**2).sum(axis=1) - (a**2).sum(axis=1))
    rest = (cut.rest * (x.h**2).sum(axis=1)).sum() / n**2
    target = Target(cut)
    found = set_distance(cut, target)
    assert found == pytest.approx(rest / target.norm**2, abs=1e-9), "the rest alone is unknown"


@given(SIZES, SIZES, SEEDS, st.booleans())
def test_herding_ends_at_the_distance_of_all(n: int, m: int, seed: int, bias: bool) -> None:
    x, target = factors(n, seed), Target(factors(m, seed + 1))
    picks, after = herd(x, target, n, bias)
    assert sorted(picks.tolist()) == list(range(n))
    assert after[-1] == pytest.approx(set_distance(x, target, bias), abs=1e-10)
    for k in range(1, n + 1):
        assert after[k - 1] == pytest.approx(set_distance(x.rows(picks[:k]), target, bias))
    first, alone = nearest(x, target, n, bias)
    assert picks[0] == first[0]
    assert (np.diff(alone) >= 0).all()


@given(SIZES, SEEDS)
def test_a_candidate_like_the_target_is_taken_first(n: int, seed: int) -> None:
    x, one = factors(n, seed), factors(1, seed + 1)
    with_it = Factors.of(np.concatenate([x.a, one.a]), np.concatenate([x.h, one.h]))
    target = Target(one)
    picks, after = herd(with_it, target, 1)
    assert after[0] == pytest.approx(0, abs=1e-12)
    assert after[0] <= herd(x, target, 1)[1][0] + 1e-12
    assert distances(with_it, target)[picks[0]] == pytest.approx(0, abs=1e-12)


@pytest.fixture(scope="module")
def model() -> LabelModel:
    return load_on_cpu(ModelDeclaration(path=model_folder()))


def test_a_text_is_read_the_same_in_any_batch(model: LabelModel) -> None:
    texts = [*sentences("great", 12, 3), "warm", *sentences("bad", 4, 5)]
    encoded = model.encode(Template.parse(TEMPLATE), texts, ["bad", "great"])
    together = model.score(encoded, [1] * len(texts))
    for row in range(len(texts)):
        alone = model.score([encoded[row]], [1])
        np.testing.assert_allclose(alone.factors.h[0], together.factors.h[row], atol=1e-5)
        np.testing.assert_allclose(alone.factors.a[0], together.factors.a[row], atol=1e-5)
        np.testing.assert_allclose(alone.states[0], together.states[row], atol=1e-5)
        # A single word has nothing before it that would predict it.
        np.testing.assert_allclose(alone.log_loss[0], together.log_loss[row], atol=1e-5)


def test_log_loss_is_that_of_the_model(model: LabelModel) -> None:
    text = sentences("great", 1, 3)[0]
    encoded = model.encode(Template.parse(TEMPLATE), [text], ["bad", "great"])
    ids = torch.tensor([model.token_ids(text)])
    with torch.inference_mode():
        wanted = float(model.model(input_ids=ids, labels=ids).loss)
    assert float(model.score(encoded, [0]).log_loss[0]) == pytest.approx(wanted, abs=1e-5)


def test_projection_reaches_from_the_nearest_token_to_greedy_decoding(model: LabelModel) -> None:
    instruction = model.token_ids("A great review :")
    table = model.embeddings
    ids = torch.tensor([model.token_ids(text)[:6] for text in sentences("great", 3, 1)])
    x = table[ids] * 1.7
    one = Projection(model, instruction, model.special, 1)
    np.testing.assert_array_equal(one(x), ids)
    everything = Projection(model, instruction, model.special, len(table) - len(model.special))
    found = everything(x)
    allowed = torch.tensor([k for k in range(len(table)) if k not in model.special])
    given = list(instruction)
    with torch.inference_mode():
        for place in range(x.shape[1]):
            logits = model.model(input_ids=torch.tensor([given])).logits[0, -1]
            given.append(int(allowed[logits[allowed].argmax()]))
            assert found[:, place].tolist() == [given[-1]] * len(x)


WIDTHS = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def heads() -> list[Any]:
    torch.manual_seed(0)
    gemma = Gemma2Config(
        **WIDTHS, head_dim=8, final_logit_softcapping=0.5, tie_word_embeddings=False
    )
    return [
        pytest.param(Gemma2ForCausalLM(gemma), id="soft cap"),
        pytest.param(
            CohereForCausalLM(CohereConfig(**WIDTHS, logit_scale=0.3, tie_word_embeddings=False)),
            id="scale",
        ),
        pytest.param(
            GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2)), id="tied"
        ),
    ]


class Sixty:
    """A tokenizer that nobody asks for tokens."""

    all_special_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return 60


@pytest.mark.parametrize("network", heads())
def test_factors_go_through_caps_and_scales_and_leave_ties_alone(network: Any) -> None:
    model = LabelModel(network.eval(), Sixty())
    ids = torch.tensor([[5, 9, 2, 30], [8, 8, 41, 7]])
    hidden = model.hidden(input_ids=ids)[:, -1].detach()
    head = torch.nn.Parameter(model.weight.clone())
    logits = model.capped(hidden @ head.T)
    with torch.inference_mode():
        torch.testing.assert_close(logits.detach(), network(input_ids=ids).logits[:, -1])
    torch.nn.functional.cross_entropy(logits, torch.tensor([3, 3])).backward()
    with torch.inference_mode():
        found = torch.einsum("bv,bd->vd", model.pull(hidden, 3), hidden) / 2
    torch.testing.assert_close(found, head.grad)


def test_what_is_no_causal_model_is_refused() -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    network = T5ForConditionalGeneration(T5Config(vocab_size=60, **sizes))
    with pytest.raises(JobError, match="encoder with a decoder"):
        LabelModel(network, Sixty())


def test_a_word_that_is_glued_to_the_template_is_refused(model: LabelModel) -> None:
    """A tokenizer that makes one token of the end of the template and one of two words."""
    letters = {letter: k for k, letter in enumerate("wasgretbdx ")}
    merges = [("a", "s"), ("w", "as"), ("g", "r"), ("was", "gr")]
    for left, right in merges:
        letters[left + right] = len(letters)
    backend = Tokenizer(BPE(letters, merges))
    glued = LabelModel(model.model, PreTrainedTokenizerFast(tokenizer_object=backend))
    with pytest.raises(JobError, match="start at a token of their own") as error:
        glued.encode(Template.parse("{text} was{word}"), ["x"], ["great", "bad"])
    assert error.value.code == "input_invalid"


@given(
    st.floats(0.05, 20),
    st.floats(1e-8, 1e-2),
    st.integers(2, 500),
    st.floats(0.1, 10),
)
def test_noise_falls_with_what_may_be_given_away(
    epsilon: float, delta: float, n: int, clip: float
) -> None:
    reach = accountant.sensitivity(clip, n, "replace-one")
    sigma = accountant.sigma_for(epsilon, delta, reach)
    mu = reach / sigma
    assert accountant.epsilon_of(mu, delta) == pytest.approx(epsilon, rel=1e-6, abs=1e-9)
    assert accountant.sigma_for(epsilon * 1.1, delta, reach) < sigma
    assert accountant.sigma_for(epsilon, delta * 1.5, reach) < sigma
    less = accountant.sensitivity(clip, n + 1, "replace-one")
    assert accountant.sigma_for(epsilon, delta, less) < sigma
    rho = accountant.rho_of(sigma, reach)
    assert accountant.composed_mu(rho) == pytest.approx(mu)
    # The exact composition of Gaussian releases never exceeds the bound of zCDP.
    assert accountant.epsilon_of(accountant.composed_mu(3 * rho), delta) <= (
        accountant.zcdp_epsilon(3 * rho, delta) + 1e-9
    )


@given(SIZES, st.integers(8, 20), SEEDS)
def test_a_subspace_of_all_public_directions_keeps_what_lies_in_it(
    n: int, m: int, seed: int
) -> None:
    public = factors(m, seed)
    real = public.rows(np.random.default_rng(seed).integers(m, size=n))
    basis = _basis(public, m)
    gram = inner(public, public)
    np.testing.assert_allclose(basis.T @ gram @ basis, np.eye(basis.shape[1]), atol=1e-6)
    weights = basis @ (inner(real, public) @ basis).mean(axis=0)
    exact, noiseless = Target(real), Target(public, weights)
    assert cosine_distance(explicit(public, weights), explicit(real)) < 1e-6
    assert noiseless.norm == pytest.approx(exact.norm, rel=1e-4)


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12).map(" ".join)


@given(WORDS, st.lists(WORDS, min_size=1, max_size=4))
def test_runs_are_those_of_brute_force(text: str, real: list[str]) -> None:
    found, own = RealTexts(real).compare(text), words(text)

    def runs(other: list[str], n: int) -> set[tuple[str, ...]]:
        return {tuple(other[k : k + n]) for k in range(len(other) - n + 1)}

    def longest(other: list[str]) -> int:
        return max(n for n in range(len(own) + 1) if n == 0 or runs(own, n) & runs(other, n))

    lengths = [longest(words(one)) for one in real]
    assert found.longest_run == max(lengths)
    assert found.nearest == (lengths.index(max(lengths)) if max(lengths) else None)
    assert found.exact is (own in [words(one) for one in real])
    for n, share in ((3, found.trigram_share), (8, found.ngram8_share)):
        grams, known = runs(own, n), set().union(*(runs(words(one), n) for one in real))
        assert share == (len(grams & known) / len(grams) if grams else None)


@given(st.lists(WORDS, min_size=1, max_size=5), st.lists(WORDS, min_size=1, max_size=5))
def test_likeness_is_one_for_equal_bags(texts: list[str], others: list[str]) -> None:
    found = likeness(texts, others)
    assert ((found >= 0) & (found <= 1 + 1e-9)).all()
    again = likeness(texts, [*others, *texts])
    for text, value in zip(texts, again, strict=True):
        assert value == pytest.approx(1.0 if words(text) else 0.0)


@given(st.lists(WORDS, min_size=2, max_size=6))
def test_self_bleu_is_that_of_brute_force(texts: list[str]) -> None:
    split = [words(text) for text in texts if words(text)]
    found = diversity.self_bleu(texts)
    if len(split) < 2:
        assert found is None
        return

    def counts(one: list[str], n: int) -> Counter[tuple[str, ...]]:
        return Counter(tuple(one[k : k + n]) for k in range(len(one) - n + 1))

    scores = []
    for k, own in enumerate(split):
        others = split[:k] + split[k + 1 :]
        logs = []
        for n in range(1, 5):
            mine, add = counts(own, n), int(n > 1)
            matched = sum(
                min(count, max(counts(other, n)[gram] for other in others))
                for gram, count in mine.items()
            )
            ratio = (matched + add) / (mine.total() + add)
            logs.append(math.log(ratio) if ratio else -math.inf)
        length = min((abs(len(o) - len(own)), i) for i, o in enumerate(others))[1]
        penalty = min(1.0, math.exp(1 - len(others[length]) / len(own)))
        scores.append(penalty * math.exp(sum(logs) / 4))
    assert found == pytest.approx(np.mean(scores))


@given(st.integers(2, 12), SEEDS)
def test_spread_is_the_mean_over_pairs(n: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [1 - unit[i] @ unit[j] for i in range(n) for j in range(i)]
    assert diversity.spread(vectors) == pytest.approx(np.mean(pairs))


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 2)), min_size=1, max_size=30), SEEDS)
def test_balance_never_empties_a_label(rows: list[tuple[float, int]], floor: int) -> None:
    metric, labels = (np.array(values) for values in zip(*rows, strict=True))
    sizes = np.bincount(labels, minlength=3)
    floors = [min(int(size), floor % 5) for size in sizes]
    dropped = filters.unbalanced(metric, labels, floors)
    left = np.setdiff1d(np.arange(len(rows)), dropped)
    kept = np.bincount(labels[left], minlength=3)
    assert (kept >= np.maximum(floors, (sizes + 1) // 2)).all()
    goal = min(metric[labels == k].mean() for k in range(3) if sizes[k])
    for k in range(3):
        if sizes[k] and kept[k] > max(floors[k], (sizes[k] + 1) // 2):
            assert metric[left][labels[left] == k].mean() <= goal + 1e-12


@given(st.lists(st.integers(0, 5), min_size=2, max_size=12), SEEDS)
def test_an_area_with_its_interval(values: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, negative = np.array(values, float), rng.integers(0, 6, 7).astype(float)
    found = comparing.auc_interval(positive, negative)
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1
    flipped = comparing.auc_interval(-positive, -negative)
    assert flipped.low == pytest.approx(1 - found.high, abs=1e-6)


def test_intervals_hold_what_they_promise() -> None:
    """Seeds that disagree and texts that differ in difficulty, drawn anew each time."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        base = np.clip(0.6 + rng.normal(0, 0.2, 100), 0.1, 0.85)
        lift = 0.03 + np.clip(rng.normal(0, 0.03, 3), -0.1, 0.1)
        one = rng.random((3, 100)) < base + lift[:, None]
        other = rng.random((3, 100)) < base
        found = comparing.mean_interval(one.astype(float) - other)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.03 <= found.high
    assert hits >= 0.93 * 400


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two. Thr", "One. Two."),
        ('He said "no." And th', 'He said "no."'),
        ("no end at all", "no end at all"),
        ("Version 3.5 is out. It", "Version 3.5 is out."),
        ("好。不好", "好。"),
    ],
)
def test_a_cut_text_ends_after_a_sentence(text: str, whole: str) -> None:
    assert ended(text, True, None) == whole
    assert ended(f"  {text} ", False, None) == text
    assert words(ended(text, False, 2)) == words(text)[:2]


def test_scripts_without_spaces_are_counted_by_characters() -> None:
    assert words("很好的电影 film 3D。") == [*"很好的电影", "film", "3d"]
    found = RealTexts(["这部电影很好"]).compare("那部电影很坏")
    assert (found.longest_run, found.words) == (4, 6)


def test_a_word_without_a_token_is_refused(model: LabelModel) -> None:
    backend = Tokenizer(BPE({letter: k for k, letter in enumerate("abx ")}, []))
    plain = LabelModel(model.model, PreTrainedTokenizerFast(tokenizer_object=backend))
    with pytest.raises(JobError, match="no token for the word '好'"):
        plain.encode(Template.parse("{text} {word}"), ["ab"], ["a", "好"])


def test_texts_do_not_depend_on_bundles(tmp_path: Path) -> None:
    def drawn(*groups: int) -> list[str]:
        part = DrawsPart(
            generator=Generator(model=model_folder()),
            prompt="A great review :",
            max_tokens=16,
            group_size=8,
            groups=list(groups),
            seed=3,
            resource="cpu",
        )
        folder = tmp_path / "-".join(map(str, groups))
        draw(part, LocalContext(folder, part))
        return [
            json.loads(line)["text"]
            for line in (folder / "artifacts" / "texts.jsonl").read_text().splitlines()
        ]

    assert drawn(0, 1, 2) == [*drawn(0), *drawn(1), *drawn(2)]
    assert drawn(0) != drawn(1)
