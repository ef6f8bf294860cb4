"""Losses, schedules, augmentation, whitening, training and scores of the official package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from methods.rank_distilled_dataset.data import augment, zca
from methods.rank_distilled_dataset.data.augment import DSA_OPERATIONS, Augment
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.networks import losses
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.networks.optimisers import rate
from methods.rank_distilled_dataset.protocol import scores
from methods.rank_distilled_dataset.training.session import Curve, Recipe, logits, train

GOLDEN = Path(__file__).parents[2] / "golden" / "ranking"
LOSSES = json.loads((GOLDEN / "losses.json").read_text())
SCORES = json.loads((GOLDEN / "aggregation.json").read_text())
RATES = json.loads((GOLDEN / "lr_schedules.json").read_text())["curves"]
CURVES = json.loads((GOLDEN / "fullbatch_curves.json").read_text())
SPREAD = json.loads((GOLDEN / "fullbatch_spread.json").read_text())["best_test_images"]
SAMPLING = json.loads((GOLDEN / "sampling_accuracy.json").read_text())


def arrays(name: str) -> dict[str, Any]:
    with np.load(GOLDEN / name, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("row", LOSSES["rows"], ids=lambda r: f"{r['loss']}-{r['kwargs']}")
def test_losses(row: dict[str, Any]) -> None:
    student = torch.tensor(LOSSES["student"], dtype=torch.float64, requires_grad=True)
    target = torch.tensor(LOSSES["teacher"], dtype=torch.float64)
    if row["second_arg"] == "teacher probabilities":
        target = target.softmax(dim=1)
    options = dict(row["kwargs"])
    if row["loss"] == "MSEGTLoss":
        loss = losses.mse_with_labels(student, target, torch.tensor(LOSSES["hard"]), **options)
    else:
        options["scale"] = options.pop("scale_loss", False)
        kl = row["loss"] == "KLDivergenceLoss"
        loss = (losses.kl_divergence if kl else losses.soft_cross_entropy)(
            student, target, **options
        )
    loss.backward()
    # The probabilities of the file were rounded to float32 before.
    assert loss.item() == pytest.approx(row["value"], rel=1e-8)
    np.testing.assert_allclose(student.grad, row["grad"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", RATES)
def test_schedules(case: str) -> None:
    name, options = case.split(" ", 1)
    given = json.loads(options)
    if isinstance(RATES[case], str):
        if name == "step":
            with pytest.raises(ValueError, match="step_size"):
                rate("step", 0, given["num_epochs"])
        return
    if name == "cosineannealing":
        # PyTorch's recursion comes back up after the last epoch; no training goes there.
        RATES[case] = RATES[case][: given["num_epochs"] + 1]
    found = [
        rate(name, e, given["num_epochs"], given.get("step_size"), given.get("gamma", 0.1))  # type: ignore[arg-type]
        for e in range(len(RATES[case]))
    ]
    np.testing.assert_allclose(found, RATES[case], atol=1e-12)


def test_dsa_operations() -> None:
    golden = arrays("augment.npz")
    x = torch.from_numpy(golden["x"])
    dsa = Augment("dsa")
    for operation in DSA_OPERATIONS:
        if operation == "color":
            continue
        found = dsa.apply(operation, x, torch.Generator().manual_seed(123))
        np.testing.assert_allclose(
            found, golden[f"dsa_nosiamese_seed123/{operation}"], atol=1e-5, err_msg=operation
        )
    one = torch.ones(len(x))
    draw = torch.rand(len(x), generator=torch.Generator().manual_seed(123))
    for name, given in {
        "brightness": (draw - 0.5, one, one),
        "saturation": (0 * one, draw * 2, one),
        "contrast": (0 * one, one, draw + 0.5),
    }.items():
        found = augment.color(x, *given)
        np.testing.assert_allclose(
            found, golden[f"dsa_nosiamese_seed123/{name}"], atol=2e-6, err_msg=name
        )
    found = dsa.apply("color", x, torch.Generator().manual_seed(123))
    np.testing.assert_allclose(found, golden["dsa_nosiamese_seed123/color"], atol=2e-6)


def test_siamese_dsa_has_one_draw_for_a_batch() -> None:
    """The official code seeds each draw anew (7, then 8, ...) and uses its first value for all."""
    golden = arrays("augment.npz")
    x = torch.from_numpy(golden["x"])

    def uniform(seed: int) -> torch.Tensor:
        return torch.rand(5, generator=torch.Generator().manual_seed(seed))[:1].expand(5)

    def whole(low: int, high: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(low, high, (5, 1, 1), generator=generator)[0, 0].expand(5)

    found = {
        "scale": augment.scale(x, *(uniform(s) * (1.2 - 1 / 1.2) + 1 / 1.2 for s in (7, 8))),
        "rotate": augment.rotate(x, (uniform(7) - 0.5) * 2 * 15 / 180 * np.pi),
        "crop": augment.crop(x, whole(-2, 3, 7), whole(-2, 3, 8)),
        "cutout": augment.cutout(x, whole(0, 17, 7), whole(0, 17, 8), (8, 8)),
        "color": augment.color(x, uniform(7) - 0.5, uniform(8) * 2, uniform(9) + 0.5),
    }
    for name, images in found.items():
        expected = golden[f"dsa_siamese_latestseed7/{name}"]
        np.testing.assert_allclose(images, expected, atol=1e-5, err_msg=name)
    twins = x[:1].expand(4, -1, -1, -1)
    for operation in DSA_OPERATIONS:
        generator = torch.Generator().manual_seed(3)
        images = Augment("dsa", siamese=True).apply(operation, twins, generator)
        assert torch.equal(images[0], images[3])


def test_dsa_modes() -> None:
    golden = arrays("augment.npz")
    x = torch.from_numpy(golden["x"])
    for mode in ("S", "M"):
        found = Augment("dsa", mode=mode)(x, torch.Generator().manual_seed(5))  # type: ignore[arg-type]
        np.testing.assert_allclose(found, golden[f"dsa_call_seed-1_torch5_mode{mode}"], atol=3e-6)
    picks = [
        int(torch.randint(6, (1,), generator=torch.Generator().manual_seed(s))) for s in range(40)
    ]
    assert picks == golden["dsa_S_pick_index_for_torch_seed_0_39"].tolist()


@pytest.mark.parametrize("beta", ["0.2", "0.8", "1.0"])
def test_mixup_and_cutmix(beta: str) -> None:
    golden = arrays("augment.npz")
    x = torch.from_numpy(golden["x"])
    order = torch.from_numpy(golden["randperm5_torchseed9"])
    share = float(golden[f"lam_{beta}_npseed9"])
    np.testing.assert_allclose(
        augment.mixup(x, share, order), golden[f"mixup_lambda{beta}_seeds9"], atol=1e-6
    )
    legacy = np.random.RandomState(9)
    assert legacy.beta(float(beta), float(beta)) == share
    box = augment.cut_box(16, 16, share, legacy.randint(16), legacy.randint(16))
    assert list(box) == golden[f"cutmix_bbox_{beta}_npseed9"].tolist()
    np.testing.assert_array_equal(
        augment.cutmix(x, order, box), golden[f"cutmix_beta{beta}_seeds9"]
    )


def test_whitening() -> None:
    golden = arrays("zca.npz")
    fitted = zca.fit(golden["x"])
    np.testing.assert_allclose(fitted.mean, golden["mean"][0], atol=1e-6)
    np.testing.assert_allclose(fitted.matrix, golden["transform"], atol=2e-5)
    np.testing.assert_allclose(fitted(golden["x"]), golden["whitened"], atol=2e-5)
    np.testing.assert_allclose(fitted(golden["test"]), golden["test_whitened"], atol=2e-5)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_train_steps(kind: str) -> None:
    golden = arrays("train_steps.npz")
    network = build("ConvNet-3-W8", (3, 16, 16), 10)
    network.load_state_dict(
        {k: torch.from_numpy(golden[f"init/{k}"]) for k in network.state_dict()}
    )
    data = Examples(torch.from_numpy(golden["x"]), torch.from_numpy(golden["y"]))
    every = tuple(range(1, 7))
    if kind == "sgd":
        recipe = Recipe(6, 0.01, step_size=3, evaluate=every)
    else:
        data.targets = torch.from_numpy(golden["teacher_logits"])
        recipe = Recipe(
            6,
            1e-3,
            optimiser="adamw",
            schedule="cosine",
            weight_decay=0.01,
            loss="kl",
            loss_options={"temperature": 20.0},
            evaluate=every,
        )
    curve = train(network, data, recipe, seed=0)
    name = "sgd" if kind == "sgd" else "adamw_kl20"
    np.testing.assert_allclose(curve.loss, golden[f"losses_{name}"], rtol=1e-5)
    network.eval()
    with torch.no_grad():
        found = network(data.images)
    np.testing.assert_allclose(found, golden[f"logits_{kind}"], atol=1e-4)
    if kind == "sgd":
        for key, value in network.state_dict().items():
            np.testing.assert_allclose(value, golden[f"final_sgd/{key}"], atol=1e-5, err_msg=key)


def digits(channels: int = 3) -> tuple[Examples, dict[str, Any]]:
    """The test set of the deterministic runs and the file with their initial weights."""
    from sklearn.datasets import load_digits

    golden = arrays("fullbatch_init.npz")
    images, labels = load_digits(return_X_y=True)
    rows = golden["test_index_into_sklearn_digits"]
    pixels = (images[rows] / 16 - golden["norm_mean"]) / golden["norm_std"]
    stacked = np.repeat(pixels.reshape(-1, 1, 8, 8), channels, axis=1).astype(np.float32)
    return Examples(torch.from_numpy(stacked), torch.from_numpy(labels[rows])), golden


def started(golden: dict[str, Any]) -> nn.Module:
    """The network of the deterministic runs with its initial weights."""
    network = build("ConvNet-3", (3, 8, 8), 10)
    network.load_state_dict(
        {k: torch.from_numpy(golden[f"init/{k}"]) for k in network.state_dict()}
    )
    return network


def trained(candidate: str, lr: str, epochs: int, every: int, **options: Any) -> Curve:
    """A deterministic run, full batch, of our code."""
    test, golden = digits()
    images = torch.from_numpy(arrays("candidates_digits_ipc1_e60_n5_none.npz")[candidate])
    recipe = Recipe(
        epochs, float(lr), step_size=30, evaluate=tuple(range(every, epochs + 1, every)), **options
    )
    examples = Examples(images, torch.arange(10))
    return train(started(golden), examples, recipe, seed=0, evaluated={"test": test})


def trained_officially(candidate: str, lr: str) -> tuple[list[float], int]:
    """What the official functions do on one batch: losses, and test images right at the best.

    With an optimiser that is not fused it is bit for bit what the package itself gives (compared in
    all runs, with AVX-512 and with AVX2); the fused one, which we use, rounds tails of vectors
    otherwise.
    """
    examples, golden = digits()
    images = torch.from_numpy(arrays("candidates_digits_ipc1_e60_n5_none.npz")[candidate])
    network, criterion = started(golden), nn.CrossEntropyLoss()
    optimiser = torch.optim.SGD(
        network.parameters(), float(lr), momentum=0.9, weight_decay=5e-4, fused=True
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=30, gamma=0.1)
    losses_then, best = [], 0
    for epoch in range(60):
        network.train()
        loss = criterion(network(images), torch.arange(10))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        losses_then.append(loss.item())
        if (epoch + 1) % 10 == 0:
            network.eval()
            with torch.inference_mode():
                best = max(best, int((network(examples.images).argmax(1) == examples.labels).sum()))
    return losses_then, best


@pytest.mark.parametrize("candidate", CURVES["runs"])
def test_full_batch_curves(candidate: str) -> None:
    """As the official code on this processor; as the golden values as far as that code gives them.

    On a processor other than theirs, however it rounds (threads, kernels, order of the images, a
    last bit of the pixels, float64), it never does for all: one to five of its 16 best accuracies
    are more than two of the 400 test images off, up to nine, an LRS by up to .008, and one loss of
    the first ten epochs forks by 1.05e-3. So golden accuracies have to be within four images of the
    range of those runs.
    """
    random = CURVES["aggregate"][candidate]["random_best_of_5_lrs"] / 100
    for lr, expected in CURVES["runs"][candidate].items():
        first = np.array(trained(candidate, lr, 10, 1, late=("test",)).loss)
        golden = np.array(expected["loss_before_each_epoch"][:10])
        forks = (candidate, lr) == ("class_means_or_kmeans", "0.01")
        np.testing.assert_allclose(first, golden, rtol=1.2e-3 if forks else 1e-3)
        if lr == "0.1":
            continue
        np.testing.assert_allclose(first[:7], golden[:7], rtol=1e-4)
        curve = trained(candidate, lr, 60, 10)
        best = round(400 * max(curve.accuracy["test"]))
        spread = [*SPREAD[candidate][lr], round(4 * expected["best"])]
        assert min(spread) - 4 <= best <= max(spread) + 4
        if lr == "0.001":  # nothing is learned
            continue
        losses_then, official = trained_officially(candidate, lr)
        np.testing.assert_allclose(first, losses_then[:10], rtol=1e-4)
        means = np.reshape(losses_then, (6, 10)).mean(axis=1)
        np.testing.assert_allclose(np.array(curve.loss), means, rtol=1e-4)
        assert abs(best - official) <= 2
        ours, theirs = (
            scores.label_robust(0.98, [k / 400], [k / 400], random).lrs[0] for k in (best, official)
        )
        assert ours == pytest.approx(theirs, abs=0.005)


@pytest.mark.parametrize("candidate", CURVES["runs"])
def test_score_of_full_batch_curves(candidate: str) -> None:
    summary = CURVES["aggregate"][candidate]
    own, random = summary["syn_acc_lr0.01"] / 100, summary["random_best_of_5_lrs"] / 100
    found = scores.label_robust(summary["full_acc_assumed"] / 100, [own], [own], random)
    assert found.lrs[0] == pytest.approx(summary["lrs_fraction"], abs=1e-9)


def _aggregate(case: dict[str, Any]) -> list[np.ndarray]:
    """Our three per-run lists for a golden case, in the official order."""
    flat = np.array(case["accuracies_flat"])
    parts = dict(zip(case["call_order"], flat.reshape(case["num_eval"], -1).T, strict=True))
    weight = case["lambda"]
    if case["evaluator"] == "ars":
        return list(
            scores.augmentation_robust(
                parts["syn_aug"],
                parts["random_aug"],
                parts["syn_noaug"],
                parts["random_noaug"],
                weight,
            )
        )
    own = parts.get("syn_soft", parts["syn_hard"])
    random = parts.get("random_soft", parts.get("random_hard"))
    found = scores.label_robust(parts["full_hard"], parts["syn_hard"], own, random, weight)
    return [found.hlr, found.ior, found.lrs]


@pytest.mark.parametrize("case", SCORES["cases"])
def test_scores(case: dict[str, Any]) -> None:
    """Percent cases too: the formulas are the same, only the published unit is wrong."""
    values = _aggregate(case)
    for place, name in enumerate(case["per_run_lists_given_to_csv"]):
        expected = case["per_run_lists_given_to_csv"][name]
        if len(expected) == 2 * case["num_eval"]:
            expected = expected[::2]  # the released code appends each score twice
        np.testing.assert_allclose(values[place], expected, rtol=1e-9, atol=1e-12)
    means = [v for k, v in case["returned"].items() if k.endswith("_mean")]
    spreads = [v for k, v in case["returned"].items() if k.endswith("_std")]
    np.testing.assert_allclose([v.mean() for v in values], means, rtol=1e-9)
    np.testing.assert_allclose([v.std() for v in values], spreads, rtol=1e-9)


def test_the_curve_of_the_score() -> None:
    curve = SCORES["normalisation_curve"]
    np.testing.assert_allclose(scores.normalise(curve["alpha"]), curve["score"], atol=1e-15)


def test_accuracy_is_top_1() -> None:
    golden = SAMPLING["accuracy"]
    found = torch.tensor(golden["logits"]).argmax(dim=1) == torch.tensor(golden["hard"])
    assert 100 * found.double().mean().item() == pytest.approx(golden["top1_top5_hard"][0])


def test_logits_in_chunks_are_those_of_the_whole() -> None:
    network = build("ConvNet-3-W8", (3, 32, 32), 10, seed=3)
    images = torch.randn(45, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network.eval()
    with torch.no_grad():
        np.testing.assert_allclose(logits(network, images), network(images), atol=1e-5)


def test_a_batch_in_parts_trains_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from methods.rank_distilled_dataset.training import session

    images = torch.randn(45, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    data = Examples(images, torch.arange(45) % 10)
    found = []
    for pixels in (1, 10**9):
        monkeypatch.setattr(session, "CHUNK_PIXELS", pixels)
        network = build("ConvNet-2-W8", (3, 16, 16), 10, seed=3)
        found.append(train(network, data, Recipe(5, 0.05, 20, step_size=9), seed=1).loss)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


def test_a_last_image_alone_joins_the_batch_before() -> None:
    images = torch.randn(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    network = build("ConvNet-3-BN-W8", (1, 8, 8), 2)
    recipe = Recipe(2, 0.1, batch_size=4, step_size=9)
    curve = train(network, Examples(images, torch.arange(9) % 2), recipe, seed=0)
    assert curve.epochs == [2]


def test_a_run_below_chance_gives_up_at_its_first_evaluation() -> None:
    test, _ = digits()
    network = build("ConvNet-3-W8", (3, 8, 8), 10, seed=1)
    noise = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(20, 1e-6, step_size=9, evaluate=(5, 10), give_up=0.9)
    curve = train(network, Examples(noise, torch.arange(10)), recipe, 0, {"validation": test})
    assert curve.stopped
    assert curve.epochs == [5]
