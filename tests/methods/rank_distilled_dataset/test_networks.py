"""Networks against the logits of the official implementation with given weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from methods.rank_distilled_dataset.networks.names import parse_name
from methods.rank_distilled_dataset.networks.networks import build, parameters

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "golden" / "ranking" / "networks.json").read_text()
)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fill(network: nn.Module) -> None:
    """The weights of the golden file, see its `how`."""
    tensors = {}
    for place, (name, tensor) in enumerate(network.state_dict().items()):
        if not tensor.is_floating_point():
            tensors[name] = tensor
            continue
        wave = np.sin(0.37 * np.arange(tensor.numel()) + 1.3 * place)
        if name.endswith("running_var"):
            wave = 1 + 0.5 * wave
        elif tensor.ndim == 1 and name.endswith("weight"):
            wave = 1 + 0.2 * wave
        elif tensor.ndim == 1:
            wave = 0.1 * wave
        else:
            wave = wave * math.sqrt(2 / (tensor.numel() / tensor.shape[0]))
        tensors[name] = torch.from_numpy(wave.astype(np.float32)).reshape(tensor.shape)
    network.load_state_dict(tensors)


@pytest.mark.parametrize("case", GOLDEN["models"])
def test_logits_and_gradients(case: str) -> None:
    golden: dict[str, Any] = GOLDEN["models"][case]
    name, _, size = case.partition("@")
    if golden["use_torchvision"]:
        name += "-TV"
    side = int(size.removesuffix("-tv"))
    network = build(name, (3, side, side), golden["num_classes"])
    assert parameters(network) == golden["params"]
    assert [[k, list(v.shape)] for k, v in network.state_dict().items()] == golden["state_dict"]
    fill(network)
    count = len(golden["logits_eval"])
    flat = torch.arange(count * 3 * side * side, dtype=torch.float64)
    x = torch.cos(0.05 * flat).reshape(count, 3, side, side)
    x = (x + 0.1 * torch.arange(count)[:, None, None, None]).float()
    # Ours in float64: how this processor rounds float32 is not what is compared.
    with torch.no_grad():
        found = network.eval().double()(x.double()).numpy()
    network.float()
    # These weights make instance norms and batch statistics divide by almost nothing: there the
    # official float32 values are themselves a few percent off those of float64.
    deep = name.startswith(("ResNet", "VGG"))
    noisy = deep and "BN" not in name
    scale = np.abs(golden["logits_eval"]).max()
    np.testing.assert_allclose(found, golden["logits_eval"], atol=(6e-2 if noisy else 2e-5) * scale)
    with torch.set_grad_enabled(not deep):
        loss = functional.cross_entropy(network.train()(x), torch.arange(1, count + 1))
    assert loss.item() == pytest.approx(golden["ce_train"], rel=2e-2 if deep else 1e-5)
    if deep:
        return
    loss.backward()
    squares = [float(p.grad.square().sum()) for p in network.parameters() if p.grad is not None]
    assert math.sqrt(sum(squares)) == pytest.approx(golden["grad_l2_total"], rel=1e-4)


def test_names_are_parsed_alike_or_refused_with_the_reason() -> None:
    """The official grammar makes a linear model of `ConvNet`; ours refuses what it guesses at."""
    refused = []
    for name, expected in GOLDEN["parse_model_name"].items():
        try:
            found = parse_name(name)
        except ValueError:
            refused.append(name)
        else:
            assert [found.depth, found.batch_norm] == expected
    assert set(refused) == {
        "ConvNet",
        "ConvNetD3",
        "ConvNet-3-GN",
        "ResNet-BN-18",
        "ResNet-18-IN-BN",
        "resnet18",
        "mobilenet_v2",
        "vit_b_16",
    }


@pytest.mark.parametrize("name", ["ConvNet-9", "ResNet-19", "ResNet-18-W32", "VGG-11-TV", "MLP-3"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name.split("-")[0]):
        parse_name(name)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("ConvNet-3", (1, 28, 28)),
        ("ConvNet-2-W16", (1, 8, 10)),
        ("ConvNet-3-BN-W8", (4, 17, 9)),
        ("LeNet", (1, 28, 28)),
        ("LeNet", (3, 64, 64)),
        ("AlexNet", (1, 28, 28)),
        ("MLP", (2, 5, 7)),
        ("ResNet-18", (1, 28, 28)),
    ],
)
def test_any_image_shape(name: str, shape: tuple[int, int, int]) -> None:
    network = build(name, shape, 7)
    assert network(torch.randn(2, *shape)).shape == (2, 7)


def test_gray_28_is_padded_to_32() -> None:
    assert build("ConvNet-3", (1, 28, 28), 10).classifier.in_features == 128 * 4 * 4


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16x16"):
        build("ConvNet-4", (3, 8, 8), 10)


def test_the_seed_alone_draws_the_weights() -> None:
    before = torch.get_rng_state()
    one, two, three = (build("ConvNet-2-W8", (3, 8, 8), 10, seed) for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(next(one.parameters()), next(three.parameters()))
