"""The grammar of network names; no torch, so that a request is checked before it is queued."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Family = Literal["ConvNet", "ResNet", "VGG", "AlexNet", "LeNet", "MLP"]

#: Depths a family is defined for; none: the name carries no depth.
DEPTHS: dict[str, tuple[int, ...]] = {
    "ConvNet": (1, 2, 3, 4, 5, 6),
    "ResNet": (18, 34, 50),
    "VGG": (11, 13, 16, 19),
    "AlexNet": (),
    "LeNet": (),
    "MLP": (),
}
DEFAULT_WIDTH = 128
MAX_WIDTH = 1024
_NAME = re.compile(r"([A-Za-z]+)(?:-(\d+))?(?:-(BN))?(?:-W(\d+))?(?:-(TV))?")


class NetworkName(NamedTuple):
    """A parsed name.

    Attributes:
        family: see `DEPTHS`.
        depth: blocks of a ConvNet, layers of the others, 0 without.
        batch_norm: batch norm; otherwise each channel is normalised by itself in each image.
        width: channels of a ConvNet's blocks.
        plain_stem: a ResNet whose first convolution never strides, with the tensor names of
            torchvision; always with batch norm.
    """

    family: Family
    depth: int
    batch_norm: bool
    width: int = DEFAULT_WIDTH
    plain_stem: bool = False


def parse_name(name: str) -> NetworkName:
    """Parse FAMILY[-DEPTH[-BN]], with -W<channels> for a ConvNet and -TV for a ResNet.

    ConvNet-3, ConvNet-3-BN, ConvNet-3-W32, ResNet-18-BN, ResNet-18-BN-TV, VGG-11, AlexNet, ...
    The names and nets are those of the dataset-condensation code base (Zhao et al. 2021).

    Raises:
        ValueError: with what is wrong about the name.
    """
    found = _NAME.fullmatch(name)
    if not found or found[1] not in DEPTHS:
        known = ", ".join(f"{k}-{v[0]}" if v else k for k, v in DEPTHS.items())
        raise ValueError(f"{name!r} names no network; names look like {known}, with -BN after them")
    family, depth, norm, width, stem = found.groups()
    depths = DEPTHS[family]
    if depths and (depth is None or int(depth) not in depths):
        listed = ", ".join(f"{family}-{d}" for d in depths)
        raise ValueError(f"{name!r} needs a depth: {listed}")
    if not depths and (depth or norm):
        raise ValueError(f"{family} has no depth and no batch norm; write {family!r}")
    if width and (family != "ConvNet" or not 1 <= int(width) <= MAX_WIDTH):
        raise ValueError(f"{name!r}: -W<channels> is for a ConvNet, from 1 to {MAX_WIDTH}")
    if stem and (family != "ResNet" or not norm):
        raise ValueError(f"{name!r}: -TV is for a ResNet with -BN")
    return NetworkName(
        family,  # type: ignore[arg-type]
        int(depth or 0),
        norm is not None,
        int(width or DEFAULT_WIDTH),
        stem is not None,
    )


def too_small(name: NetworkName, height: int, width: int) -> str | None:
    """Why images of this size do not fit the network, or None."""
    least = {
        "ConvNet": 2**name.depth,
        "VGG": 32,
        "AlexNet": 8,
        "LeNet": 16,
        "ResNet": 16,
        "MLP": 1,
    }[name.family]
    if min(height, width) < least:
        return f"{name.family} of this depth needs images of at least {least}x{least}"
    return None
