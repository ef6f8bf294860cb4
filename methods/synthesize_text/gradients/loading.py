"""The label model of a part: shared by the parts that only read it."""

from __future__ import annotations

from methods.context import RunContext
from methods.synthesize_text.child_jobs import DeviceName
from methods.synthesize_text.gradients.label_model import LabelModel, load_on_cpu, load_on_gpu


def label_model(ctx: RunContext, name: str, device: DeviceName) -> LabelModel:
    """The loaded model of a name. Raises `JobError`."""
    return ctx.models.load(name, load_on_gpu if device == "gpu" else load_on_cpu)
