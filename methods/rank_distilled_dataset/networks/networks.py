"""The networks of the data-set-condensation field (Zhao et al. 2021), for any image shape.

Tensors have the names and the order of the field's released checkpoints, so those load as they
are. "Instance norm" is GroupNorm with one channel a group, as there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from methods.rank_distilled_dataset.networks.names import NetworkName, parse_name, too_small

_VGG = {
    11: (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    13: (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    16: (64, 64, 0, 128, 128, 0, *(256,) * 3, 0, *(512,) * 3, 0, *(512,) * 3, 0),
    19: (64, 64, 0, 128, 128, 0, *(256,) * 4, 0, *(512,) * 4, 0, *(512,) * 4, 0),
}
_RESNET = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def build(
    name: str | NetworkName, shape: tuple[int, int, int], classes: int, seed: int = 0
) -> nn.Module:
    """A network with PyTorch's default initialisation, drawn from `seed` alone.

    Args:
        name: see `parse_name`.
        shape: channels, height and width of an image.
        classes: outputs.

    Raises:
        ValueError: the name is unknown or the images are too small for the network.
    """
    parsed = parse_name(name) if isinstance(name, str) else name
    problem = too_small(parsed, shape[1], shape[2])
    if problem:
        raise ValueError(f"{problem}, these are {shape[1]}x{shape[2]}")
    make: dict[str, Callable[..., nn.Module]] = {
        "ConvNet": ConvNet,
        "ResNet": ResNet,
        "VGG": VGG,
        "AlexNet": AlexNet,
        "LeNet": LeNet,
        "MLP": MLP,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make[parsed.family](parsed, shape, classes)


def _norm(channels: int, batch_norm: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if batch_norm else nn.GroupNorm(channels, channels)


def _width_of(features: nn.Module, shape: tuple[int, int, int]) -> int:
    """How many numbers an image becomes, from shapes alone."""
    clone = copy.deepcopy(features).to("meta").eval()
    return int(clone(torch.empty((2, *shape), device="meta")).flatten(1).shape[1])


class ConvNet(nn.Module):  # type: ignore[misc]
    """`depth` times 3x3 convolution, norm, ReLU and 2x2 mean; one linear layer.

    Images of 28x28 are padded to 32x32 in the first convolution, as the field does.
    """

    def __init__(self, name: NetworkName, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = shape[0]
        for block in range(name.depth):
            padding = 3 if block == 0 and shape[1:] == (28, 28) else 1
            layers += [
                nn.Conv2d(channels, name.width, 3, padding=padding),
                _norm(name.width, name.batch_norm),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
            channels = name.width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(_width_of(self.features, shape), classes)

    def embed(self, x: Tensor) -> Tensor:
        """What the last layer sees, [B, D]."""
        return self.features(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


class MLP(nn.Module):  # type: ignore[misc]
    """Two hidden layers of 128."""

    def __init__(self, name: NetworkName, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.fc_1 = nn.Linear(shape[0] * shape[1] * shape[2], 128)
        self.fc_2 = nn.Linear(128, 128)
        self.fc_3 = nn.Linear(128, classes)

    def embed(self, x: Tensor) -> Tensor:
        """What the last layer sees, [B, 128]."""
        return functional.relu(self.fc_2(functional.relu(self.fc_1(x.flatten(1)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_3(self.embed(x))


class LeNet(nn.Module):  # type: ignore[misc]
    """Two 5x5 convolutions and three linear layers; images above 40 pixels are strided."""

    def __init__(self, name: NetworkName, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        padding, stride = 2 if shape[0] == 1 else 0, 1 if shape[1] <= 40 else 2
        self.features = nn.Sequential(
            nn.Conv2d(shape[0], 6, 5, padding=padding, stride=stride),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.fc_1 = nn.Linear(_width_of(self.features, shape), 120)
        self.fc_2 = nn.Linear(120, 84)
        self.fc_3 = nn.Linear(84, classes)

    def embed(self, x: Tensor) -> Tensor:
        """What the last layer sees, [B, 84]."""
        x = self.features(x).flatten(1)
        return functional.relu(self.fc_2(functional.relu(self.fc_1(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_3(self.embed(x))


class AlexNet(nn.Module):  # type: ignore[misc]
    """Five convolutions (128, 192, 256, 192, 192) and one linear layer."""

    def __init__(self, name: NetworkName, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        padding, stride = 4 if shape[0] == 1 else 2, 1 if shape[1] <= 40 else 2
        layers: list[nn.Module] = [
            nn.Conv2d(shape[0], 128, 5, stride=stride, padding=padding),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        inputs = 128
        for channels, kernel, pooled in ((192, 5, 1), (256, 3, 0), (192, 3, 0), (192, 3, 1)):
            layers += [
                nn.Conv2d(inputs, channels, kernel, padding=kernel // 2),
                nn.ReLU(inplace=True),
            ]
            layers += [nn.MaxPool2d(2)] if pooled else []
            inputs = channels
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(_width_of(self.features, shape), classes)

    def embed(self, x: Tensor) -> Tensor:
        """What the last layer sees, [B, D]."""
        return self.features(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.embed(x))


class VGG(nn.Module):  # type: ignore[misc]
    """VGG with a norm after each convolution and one linear layer on 512 channels."""

    def __init__(self, name: NetworkName, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = shape[0]
        for place, channels in enumerate(_VGG[name.depth]):
            if channels == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            padding = 3 if place == 0 and shape[0] == 1 else 1
            layers += [
                nn.Conv2d(inputs, channels, 3, padding=padding),
                _norm(channels, name.batch_norm),
                nn.ReLU(inplace=True),
            ]
            inputs = channels
        layers.append(nn.AvgPool2d(1, stride=1 if shape[1] <= 40 else 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(_width_of(self.features, shape), classes)

    def embed(self, x: Tensor) -> Tensor:
        """What the last layer sees, [B, D]."""
        return self.features(x).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.embed(x))


class _Block(nn.Module):  # type: ignore[misc]
    """A residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 with four times the channels."""

    def __init__(
        self, inputs: int, channels: int, stride: int, batch_norm: bool, wide: bool, shortcut: str
    ) -> None:
        super().__init__()
        outputs = channels * 4 if wide else channels
        kernels = ((1, 1), (3, stride), (1, 1)) if wide else ((3, stride), (3, 1))
        widths = (inputs, *(channels,) * (len(kernels) - 1), outputs)
        self.depth = len(kernels)
        for place, (kernel, step) in enumerate(kernels, start=1):
            conv = nn.Conv2d(
                widths[place - 1], widths[place], kernel, step, kernel // 2, bias=False
            )
            self.add_module(f"conv{place}", conv)
            self.add_module(f"bn{place}", _norm(widths[place], batch_norm))
        side = nn.Sequential()
        if stride != 1 or inputs != outputs:
            side = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), _norm(outputs, batch_norm)
            )
        self.add_module(shortcut, side)
        self.shortcut_name = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for place in range(1, self.depth + 1):
            out = getattr(self, f"bn{place}")(getattr(self, f"conv{place}")(out))
            if place < self.depth:
                out = functional.relu(out)
        return functional.relu(out + getattr(self, self.shortcut_name)(x))


class ResNet(nn.Module):  # type: ignore[misc]
    """A ResNet for small images: 3x3 first convolution, no first pooling, mean at the end.

    From 64 pixels on the first convolution strides by two, unless the name says -TV.
    """

    def __init__(self, name: NetworkName, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        wide = name.depth >= 50
        shortcut, self.head = (
            ("downsample", "fc") if name.plain_stem else ("shortcut", "classifier")
        )
        first = 2 if shape[1] >= 64 and not name.plain_stem else 1
        self.conv1 = nn.Conv2d(shape[0], 64, 3, first, 1, bias=False)
        self.bn1 = _norm(64, name.batch_norm)
        inputs = 64
        for stage, blocks in enumerate(_RESNET[name.depth]):
            channels = 64 << stage
            layers: list[nn.Module] = []
            for block in range(blocks):
                stride = 2 if stage and block == 0 else 1
                layers.append(_Block(inputs, channels, stride, name.batch_norm, wide, shortcut))
                inputs = channels * (4 if wide else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.add_module(self.head, nn.Linear(inputs, classes))

    def embed(self, x: Tensor) -> Tensor:
        """What the last layer sees, [B, 512] or [B, 2048]."""
        x = functional.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self.head)(self.embed(x))


def parameters(network: nn.Module) -> int:
    """The number of trained values."""
    return sum(p.numel() for p in network.parameters())


def mean_logits(networks: Sequence[nn.Module], images: Tensor) -> Tensor:
    """The mean of the logits of several networks [B, classes], without a graph."""
    with torch.no_grad():
        return torch.stack([network(images) for network in networks]).mean(dim=0)
