"""Published evaluation settings of distillation methods (the benchmark's `eval` branch)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

PresetName = Literal[
    "dc", "dsa", "dm", "mtt", "datm", "sre2l", "d4m", "rded", "dwa", "g-vbsm", "edc"
]

_SGD: dict[str, Any] = {
    "optimiser": "sgd",
    "schedule": "step",
    "step_size": 500,
    "weight_decay": 5e-4,
    "epochs": 1000,
    "batch_size": 256,
}
_ADAMW: dict[str, Any] = {"optimiser": "adamw", "schedule": "cosine", "weight_decay": 0.01}
_DSA = {"augmentation": {"name": "dsa"}}
_CUTMIX = {"augmentation": {"name": "cutmix", "beta": 1.0}}


@dataclass(frozen=True)
class Preset:
    """Settings of a method.

    Attributes:
        train: over `train` of the job; by data set over that, `train_by_dataset`.
        batch_by_ipc: batch sizes for 1, 10 and 50 images a class.
        labels: the label kind that it was published with.
        zca: it was distilled from whitened images.
        syn_lr: its learning rate, where one is published.
    """

    train: dict[str, Any]
    labels: str
    train_by_dataset: dict[str, dict[str, Any]]
    batch_by_ipc: dict[str, tuple[int, int, int]]
    zca: bool = False
    syn_lr: float | None = None


def _soft(temperature: float, **others: Any) -> dict[str, Any]:
    return {"loss": "kl", "temperature": temperature, **others}


_DECOUPLED = {**_ADAMW, **_soft(20), **_CUTMIX, "epochs": 300}

PRESETS: dict[str, Preset] = {
    "dc": Preset({**_SGD, "augmentation": {"name": "none"}}, "hard", {}, {}),
    "dsa": Preset({**_SGD, **_DSA}, "hard", {}, {}),
    "dm": Preset({**_SGD, **_DSA}, "hard", {}, {}),
    "mtt": Preset({**_SGD, **_DSA}, "hard", {}, {}),
    "datm": Preset(
        {**_SGD, **_DSA, "loss": "sce", "temperature": 1.0, "augment_hard": True},
        "soft_S",
        {},
        {},
        zca=True,
    ),
    "sre2l": Preset(
        {
            **_ADAMW,
            **_soft(30),
            "augmentation": {"name": "mixup", "beta": 0.8},
            "epochs": 400,
            "batch_size": 256,
        },
        "soft_M",
        {"tiny-imagenet": {**_soft(20), **_CUTMIX, "batch_size": 1024}},
        {},
    ),
    "d4m": Preset(
        {**_DECOUPLED, "epochs": 500, "batch_size": 100},
        "soft_M",
        {"tiny-imagenet": {"epochs": 300, "batch_size": 1024}},
        {},
    ),
    "rded": Preset(
        _DECOUPLED,
        "soft_M",
        {},
        {
            "cifar10": (10, 50, 100),
            "cifar100": (20, 50, 200),
            "tiny-imagenet": (100, 100, 200),
        },
        syn_lr=0.001,
    ),
    # Published for ImageNet-1K alone.
    "dwa": Preset({**_DECOUPLED, "batch_size": 128}, "soft_M", {}, {}),
    "g-vbsm": Preset({**_DECOUPLED, "batch_size": 512}, "soft_M", {}, {}),
    "edc": Preset(
        {
            **_ADAMW,
            **_CUTMIX,
            "loss": "mse_gt",
            "mse_weight": 1.0,
            "ce_weight": 0.025,
            "epochs": 300,
            "batch_size": 100,
        },
        "soft_M",
        {},
        {},
        syn_lr=0.001,
    ),
}


def settings(preset: str | None, dataset: str, ipc: int) -> dict[str, Any]:
    """The fields of `train` that a preset sets for a data set and ipc; {} without a preset."""
    if preset is None:
        return {}
    found = PRESETS[preset]
    chosen = {**found.train, **found.train_by_dataset.get(dataset, {})}
    sizes = found.batch_by_ipc.get(dataset, (10, 50, 100) if found.batch_by_ipc else None)
    if sizes is not None:
        chosen["batch_size"] = sizes[0] if ipc < 10 else sizes[1] if ipc < 50 else sizes[2]
    if preset == "d4m" and dataset == "cifar100" and ipc == 1:
        chosen["temperature"] = 30
    return chosen
