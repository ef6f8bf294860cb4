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

    name: Literal["none", "dsa", "mixup", "cutmix"] = Field(
        "none",
        description="`dsa`: six random operations, such as flips, crops and colours; `mixup`: "
        "images are blended with others; `cutmix`: a box of each image comes from another.",
    )
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

    optimiser: Literal["sgd", "adam", "adamw"] = Field(
        "sgd", description="Optimiser of the trainings."
    )
    schedule: Literal["step", "cosineannealing", "cosine"] = Field(
        "step",
        description="Schedule of the learning rate, per epoch. `cosine` is SRe2L's: it ends at "
        "one half.",
    )
    step_size: int | None = Field(
        None, ge=1, description="`step`: epochs between drops to a tenth; null: half of epochs."
    )
    epochs: int = Field(1000, ge=1, le=100_000, description="Passes over the training set.")
    batch_size: int = Field(256, ge=2, le=65_536, description="Images of a step, at most.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="Weight decay of the optimiser.")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Momentum of `sgd`; the other optimisers ignore it."
    )
    augmentation: Augmentation = Field(
        default_factory=Augmentation, description="How training images are changed."
    )
    loss: Literal["kl", "sce", "mse_gt"] = Field(
        "kl", description="Loss on soft labels; hard labels are trained with cross entropy."
    )
    temperature: float = Field(
        1.2, gt=0, le=1000, description="Temperature of the losses `kl` and `sce`."
    )
    scale_loss: bool = Field(False, description="kl and sce: times temperature squared.")
    mse_weight: float = Field(
        1.0, ge=0, description="mse_gt: weight of the squared difference of the logits."
    )
    ce_weight: float = Field(0.0, ge=0, description="mse_gt: weight of the hard-label loss.")
    augment_hard: bool = Field(
        False,
        description="Candidates with soft labels: whether their hard-label training (for HLR) is "
        "augmented too.",
    )


class TrainChange(SpecModel):
    """The fields of `train` that are different for one candidate."""

    optimiser: Literal["sgd", "adam", "adamw"] | None = Field(
        None, description="Optimiser of the trainings; null: unchanged."
    )
    schedule: Literal["step", "cosineannealing", "cosine"] | None = Field(
        None, description="Schedule of the learning rate; null: unchanged."
    )
    step_size: int | None = Field(
        None, ge=1, description="`step`: epochs between drops to a tenth; null: unchanged."
    )
    epochs: int | None = Field(
        None, ge=1, le=100_000, description="Passes over the training set; null: unchanged."
    )
    batch_size: int | None = Field(
        None, ge=2, le=65_536, description="Images of a step, at most; null: unchanged."
    )
    weight_decay: float | None = Field(
        None, ge=0, le=1, description="Weight decay of the optimiser; null: unchanged."
    )
    momentum: float | None = Field(
        None, ge=0, lt=1, description="Momentum of `sgd`; null: unchanged."
    )
    augmentation: Augmentation | None = Field(
        None, description="How training images are changed, as a whole; null: unchanged."
    )
    loss: Literal["kl", "sce", "mse_gt"] | None = Field(
        None, description="Loss on soft labels; null: unchanged."
    )
    temperature: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Temperature of the losses `kl` and `sce`; null: unchanged.",
    )
    scale_loss: bool | None = Field(
        None,
        description="kl and sce: whether the loss is multiplied by temperature squared; null: "
        "unchanged.",
    )
    mse_weight: float | None = Field(
        None,
        ge=0,
        description="mse_gt: weight of the squared difference of the logits; null: unchanged.",
    )
    ce_weight: float | None = Field(
        None, ge=0, description="mse_gt: weight of the hard-label loss; null: unchanged."
    )
    augment_hard: bool | None = Field(
        None,
        description="Soft labels: whether the hard-label training is augmented too; null: "
        "unchanged.",
    )


#: Trainings that go side by side, at most.
SIDE_BY_SIDE: dict[EngineName, int] = {"sequential": 1, "compiled": 1, "graph": 8, "stacked": 25}
