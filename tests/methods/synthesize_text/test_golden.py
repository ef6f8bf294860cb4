"""Golden numbers of the official code and of exact derivations; each file's `how` says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from methods.synthesize_text.gradients import accountant
from methods.synthesize_text.gradients.factors import Factors, Target, distances, set_distance
from methods.synthesize_text.gradients.herding import herd
from methods.synthesize_text.gradients.label_model import LabelModel
from methods.synthesize_text.gradients.matching import MatchTarget, group_distances
from methods.synthesize_text.optimisation.admm import Admm, Frame, Recipe
from methods.synthesize_text.optimisation.projection import Projection
from methods.synthesize_text.texts import filters
from methods.synthesize_text.texts.overlap import RealTexts

GOLDEN = Path(__file__).parents[2] / "golden" / "synthesis"
TRACES = sorted(GOLDEN.glob("admm_trace_*.npz"))


def arrays(name: str) -> dict[str, Any]:
    with np.load(GOLDEN / name, allow_pickle=False) as file:
        return dict(file)


def values(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


class NoTokenizer:
    """Golden files hold token numbers."""

    all_special_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return 64


def model_of(kind: str) -> LabelModel:
    given = arrays(f"model_{kind}.npz")
    config = json.loads(str(given.pop("__config__")))
    given.pop("how")
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(config.pop("model_type"), **config), dtype=torch.float32
    )
    model.load_state_dict({name: torch.tensor(value) for name, value in given.items()})
    return LabelModel(model.eval(), NoTokenizer())


def factors_of(model: LabelModel, ids: np.ndarray, word: int) -> Factors:
    with torch.inference_mode():
        hidden = model.hidden(input_ids=torch.tensor(ids))[:, -1]
        return Factors.of(model.pull(hidden, word).numpy(), hidden.numpy())


@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_head_gradients_are_products_of_factors(kind: str) -> None:
    given, model = arrays(f"lm_grads_{kind}.npz"), model_of(kind)
    word = int(given["label_token"])
    with torch.inference_mode():
        hidden = model.hidden(inputs_embeds=torch.tensor(given["x_embeds"]))[:, -1]
        pull = model.pull(hidden, word).numpy()
    for row in range(len(pull)):
        explicit = np.outer(pull[row], hidden[row])
        np.testing.assert_allclose(explicit, given[f"per_sample_{row}_grad_0"], atol=1e-5)
    found = factors_of(model, given["ids"], word)
    mean = np.einsum("bv,bd->vd", found.a, found.h) / len(found)
    np.testing.assert_allclose(mean, given["grad_ids_0"], atol=1e-5)
    if kind == "phi":
        np.testing.assert_allclose(found.a.mean(axis=0), given["grad_ids_1"], atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_distance_is_the_official_one_without_its_matrices(kind: str) -> None:
    given, model = arrays(f"grad_distance_{kind}.npz"), model_of(kind)
    bias, word = kind == "phi", int(given["label_token"])
    target = Target(Factors.of(given["real_A"], given["real_H"]))
    drawn = Factors.of(given["syn_A"], given["syn_H"])
    assert set_distance(drawn, target, bias) == pytest.approx(given["official_joint"], abs=1e-5)
    found = distances(drawn, target, bias)
    np.testing.assert_allclose(found, given["official_per_sample"], atol=1e-5)
    # From the model itself, and with its gradient, which double backward gives officially.
    real = Target(factors_of(model, given["real_ids"], word))
    x = torch.tensor(given["syn_x"], requires_grad=True)
    hidden = model.hidden(inputs_embeds=x)[:, -1]
    pull = model.pull(hidden, word)
    found = group_distances(pull[None], hidden[None], MatchTarget.of(real, "cpu"), bias)
    found.sum().backward()
    assert float(found.detach()) == pytest.approx(given["official_joint"], abs=1e-5)
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), given["official_grad_x"], atol=1e-5)


def test_explicit_matrices_give_the_same_distances() -> None:
    """The official function on matrices of full rank, as sums of d rank-one gradients."""
    given = arrays("grad_dist.npz")
    target, current = given["target_0"].astype(np.float64), given["curr_0"].astype(np.float64)
    width = target.shape[1]

    def columns(matrix: np.ndarray) -> Factors:
        return Factors.of(matrix.T * width, np.eye(width))

    found = set_distance(columns(current), Target(columns(target)))
    assert 1 - found == pytest.approx(given["cos_sim_0"], abs=1e-5)
    squared = group_distances(
        torch.tensor(columns(current).a)[None],
        torch.eye(width, dtype=torch.float64)[None],
        MatchTarget(
            torch.tensor(columns(target).a),
            torch.eye(width, dtype=torch.float64),
            torch.full((width,), 1 / width, dtype=torch.float64),
            None,
            float(np.linalg.norm(target)),
            0.0,
        ),
        kind="l2",
    )
    vectors = np.square(given["target_1"] - given["curr_1"]).sum()
    assert float(squared) + vectors == pytest.approx(given["dlg"], rel=1e-5)


@pytest.mark.parametrize("top_k", [1, 3, 8, 20, 60])
@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_projection_writes_the_official_tokens(kind: str, top_k: int) -> None:
    given, model = arrays(f"projection_{kind}.npz"), model_of(kind)
    text = slice(0, given["x_embeds"].shape[1] - int(given["prompt_len"]))
    project = Projection(
        model, given["prefix_ids"].tolist(), set(given["unused_tokens"].tolist()), top_k
    )
    found = project(torch.tensor(given["x_embeds"][:, text]))
    np.testing.assert_array_equal(found.numpy(), given[f"ids_top{top_k}"][:, text])


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_published_loop_takes_the_official_steps(path: Path) -> None:
    given = arrays(path.name)
    settings, word = json.loads(str(given["settings"])), int(given["label_token"])
    model = model_of("llama" if "llama" in path.stem else "phi")
    prompt = given["prompt_ids"].tolist()
    text = slice(0, given["init_x"].shape[1] - len(prompt))
    target = Target(factors_of(model, given["real_ids"], word))
    steps: list[np.ndarray] = []

    def observe(outer: int, inner: int, x: torch.Tensor) -> None:
        if inner == settings["admm_inner_steps"]:
            steps.append(x[0].numpy().copy())

    banned = set(given["unused_tokens"].tolist())
    admm = Admm(
        model,
        MatchTarget.of(target, "cpu"),
        Frame([], prompt, word),
        Projection(model, given["prefix_ids"].tolist(), banned, settings["topk"]),
        Recipe(
            outer=settings["n_steps"],
            inner=settings["admm_inner_steps"],
            rho=settings["admm_rho"],
            lr=settings["lr"],
            clip=settings["grad_clip"],
            bias=model.bias is not None,
            penalty="sum",
            select="penalised",
        ),
        observe=observe,
    )
    outcome = admm.run(torch.tensor(given["init_x"][:, text])[None])
    np.testing.assert_allclose(np.stack(steps), given["x_after_outer"][:, :, text], atol=1e-5)
    np.testing.assert_array_equal(outcome.ids[0], given["final_ids"][:, text])


@pytest.mark.parametrize("case", values("herding.json")["cases"])
def test_herding_picks_exactly(case: dict[str, Any]) -> None:
    def factors(given: dict[str, Any]) -> Factors:
        return Factors.of(np.array(given["a"]), np.array(given["h"]))

    candidates, target = factors(case["candidates"]), Target(factors(case["target"]))
    picks, after = herd(candidates, target, case["choose"], case["bias"])
    assert picks.tolist() == case["picks"]
    np.testing.assert_allclose(after, case["distance_after_each"], atol=1e-10)
    alone = distances(candidates, target, case["bias"])
    np.testing.assert_allclose(alone, case["distance_alone"], atol=1e-10)
    whole = set_distance(candidates, target, case["bias"])
    assert whole == pytest.approx(case["distance_of_all"], abs=1e-10)


def test_accounting_is_exact() -> None:
    given = values("dp_accountant.json")
    for case in given["calibration"]:
        reach = accountant.sensitivity(case["clip"], case["n"], case["adjacency"])
        assert reach == pytest.approx(case["sensitivity"], rel=1e-12)
        sigma = accountant.sigma_for(case["epsilon"], case["delta"], reach)
        assert sigma == pytest.approx(case["sigma"], rel=1e-8)
        assert accountant.rho_of(sigma, reach) == pytest.approx(case["rho_zcdp"], rel=1e-8)
    for case in given["composition"]:
        rho = sum(mu**2 / 2 for mu in case["mu"])
        total = accountant.composed_mu(rho)
        assert total == pytest.approx(case["mu_total"], rel=1e-12)
        exact = accountant.epsilon_of(total, case["delta"])
        assert exact == pytest.approx(case["epsilon_exact"], rel=1e-8)
        tight = accountant.zcdp_epsilon(rho, case["delta"])
        assert tight == pytest.approx(case["epsilon_zcdp_tight"], rel=1e-8)
    for case in given["expected_cosine"]:
        found = accountant.expected_cosine(case["sigma"], case["dimension"], case["clip"])
        assert found == pytest.approx(case["cosine_if_signal_is_clip"], rel=1e-8)


def test_the_official_noise_is_less_than_its_statement() -> None:
    given = values("dp_official.json")
    for case in given["official_std"]:
        epsilon, delta, clip, n = (case[name] for name in ("epsilon", "delta", "C", "n"))
        sigma = accountant.official_sigma(epsilon, delta, clip, n)
        assert sigma == pytest.approx(case["std"], rel=1e-6)
        for adjacency, key in (
            ("zero-out-one", "exact_eps_add_remove"),
            ("replace-one", "exact_eps_replace_one"),
        ):
            mu = accountant.sensitivity(clip, n, adjacency) / sigma
            assert accountant.epsilon_of(mu, delta) == pytest.approx(case[key], rel=1e-6)
    for case in given["clip"]:
        flat = np.concatenate([np.ravel(part) for part in case["gradients"]])
        wanted = np.concatenate([np.ravel(part) for part in case["clipped"]])
        found = accountant.clipped(flat[None], 1.0)[0]
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_filters_are_the_official_ones() -> None:
    given = values("filter.json")
    for case in given["clean_text"]:
        assert filters.official_clean(case["inp"]) == case["out"]
    rows = given["rows"]
    for case in given["selections"]:
        if case["function"] != "top_per_label":
            continue
        metric = [
            loss + case["alpha"] * perplexity
            for loss, perplexity in zip(rows["rec_loss_ids"], rows["perplexity"], strict=True)
        ]
        found = filters.official_top(rows["inputs"], rows["label"], metric, case["n"])
        assert [rows["id"][row] for row in found] == case["ids"]
        np.testing.assert_allclose([metric[row] for row in found], case["metric"])


def test_banned_tokens_are_the_official_ones() -> None:
    for token in values("token_ban.json")["tokens"]:
        assert filters.official_ban(token["text"]) is token["banned"], token


def test_overlap_is_counted_in_words() -> None:
    given = values("overlap.json")
    index = RealTexts(given["real"])
    for case in given["cases"]:
        found = index.compare(case["text"])
        for name in ("words", "longest_run", "nearest", "exact", "trigram_share"):
            assert getattr(found, name) == case[name], (name, case)
