"""How networks are trained: the part of a request that candidates may change."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from methods.jobtype import SpecModel

#: How trainings are carried out, see `engines`.
EngineName = Literal["sequential", "compiled", "graph", "stacked"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)


class Augmentation(SpecModel):
    """How a batch of training images is changed. Labels are never mixed."""

    name: Literal["none", "dsa", "mixup", "cutmix"] = "none"
    mode: Literal["S", "M"] = Field(
        "S", description="dsa: one of the six operations a batch, or all of them."
    )
    beta: float = Field(
        1.0, gt=0, le=100, description="mixup, cutmix: parameter of the Beta distribution."
    )
    strengths: dict[
        Literal[
            "flip", "rotate", "saturation", "brightness", "contrast", "scale", "crop", "cutout"
        ],
        float,
    ] = Field(default_factory=dict, description="dsa: strengths other than the field's.")


class Train(SpecModel):
    """How a network is trained on a candidate and on its random subsets."""

    optimiser: Literal["sgd", "adam", "adamw"] = "sgd"
    schedule: Literal["step", "cosineannealing", "cosine"] = Field(
        "step",
        description="Schedule of the learning rate, per epoch. `cosine` is SRe2L's: it ends at "
        "one half.",
    )
    step_size: int | None = Field(
        None, ge=1, description="`step`: epochs between drops to a tenth; null: half of epochs."
    )
    epochs: int = Field(1000, ge=1, le=100_000)
    batch_size: int = Field(256, ge=2, le=65_536)
    weight_decay: float = Field(5e-4, ge=0, le=1)
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Momentum of `sgd`; the other optimisers ignore it."
    )
    augmentation: Augmentation = Field(default_factory=Augmentation)
    loss: Literal["kl", "sce", "mse_gt"] = Field(
        "kl", description="Loss on soft labels; hard labels are trained with cross entropy."
    )
    temperature: float = Field(
        1.2, gt=0, le=1000, description="Temperature of the losses `kl` and `sce`."
    )
    scale_loss: bool = Field(False, description="kl and sce: times temperature squared.")
    mse_weight: float = Field(1.0, ge=0)
    ce_weight: float = Field(0.0, ge=0, description="mse_gt: weight of the hard-label loss.")
    augment_hard: bool = Field(
        False,
        description="Candidates with soft labels: whether their hard-label training (for HLR) is "
        "augmented too.",
    )


class TrainChange(SpecModel):
    """The fields of `train` that are different for one candidate."""

    optimiser: Literal["sgd", "adam", "adamw"] | None = None
    schedule: Literal["step", "cosineannealing", "cosine"] | None = None
    step_size: int | None = Field(None, ge=1)
    epochs: int | None = Field(None, ge=1, le=100_000)
    batch_size: int | None = Field(None, ge=2, le=65_536)
    weight_decay: float | None = Field(None, ge=0, le=1)
    momentum: float | None = Field(None, ge=0, lt=1)
    augmentation: Augmentation | None = None
    loss: Literal["kl", "sce", "mse_gt"] | None = None
    temperature: float | None = Field(None, gt=0, le=1000)
    scale_loss: bool | None = None
    mse_weight: float | None = Field(None, ge=0)
    ce_weight: float | None = Field(None, ge=0)
    augment_hard: bool | None = None


#: Trainings that go side by side, at most.
SIDE_BY_SIDE: dict[EngineName, int] = {"sequential": 1, "compiled": 1, "graph": 8, "stacked": 25}
