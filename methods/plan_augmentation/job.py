"""Runs a plan-augmentation job: outputs, plan, images, trainings, verdict."""

from __future__ import annotations

import numpy as np

from methods.arrays.npz import loadz
from methods.context import RunContext
from methods.parts import Parts
from methods.plan_augmentation.child_jobs import EARLY_PART, EarlyMade, EarlyPart
from methods.plan_augmentation.making.asking import Images
from methods.plan_augmentation.outcome import cautions, saving
from methods.plan_augmentation.outcome.blocks import present
from methods.plan_augmentation.outcome.verdict import compared, verdict
from methods.plan_augmentation.planning.plan import Planned, controls, count, couples, plan
from methods.plan_augmentation.planning.reading import Outputs, given
from methods.plan_augmentation.result import AugmentationPlan, ClassPlan, Result, Stability
from methods.plan_augmentation.settings import ClassifierRecipe
from methods.plan_augmentation.spec import JOB, Spec
from methods.plan_augmentation.training.asking import Arms
from methods.results import ArtifactRef, Provenance
from methods.typing import BoolArray, IntArray


def run(spec: Spec, ctx: RunContext) -> Result:
    """Plan, make and test; see `Spec` and `Result`."""
    return _Job(spec, ctx).run()


class _Job:
    def __init__(self, spec: Spec, ctx: RunContext) -> None:
        self._spec, self._ctx, self._parts = spec, ctx, Parts(ctx)
        self._artifacts: dict[str, ArtifactRef] = {}
        self._versions: dict[str, str] = {}
        self._early: EarlyMade | None = None
        self._images = Images(spec, self._parts, ctx)

    def run(self) -> Result:
        spec, ctx = self._spec, self._ctx
        outputs = self._outputs()
        found = plan(spec, outputs, ctx.check)
        arms = Arms(spec, len(outputs.labels), self._parts)
        if spec.evaluate is not None:
            # First: what it gets wrong in the end may be labelled wrong.
            found.noise = found.slow & arms.plain()
            count(found, spec)
        asked = [] if spec.evaluate is None else spec.evaluate.arms
        others: dict[str, IntArray]
        others = {name: own for name, own in controls(found, spec).items() if name in asked}
        generated = None
        if spec.mode == "generate":
            wanted = couples(found.copies)
            self._images.make(wanted, [one for own in others.values() for one in couples(own)])
            generated = self._images.look(wanted, arms.judge)
        if spec.evaluate is not None:
            arms.others({"targeted": found.copies, **others}, found.targets > 0, self._images)
        evaluation = compared(arms.found)
        self._artifacts |= saving.plan_files(found, spec, ctx)
        self._artifacts |= self._images.artifacts
        result = Result(
            plan=self._plan(found),
            early=[] if self._early is None else self._early.curve,
            generated=generated,
            evaluation=evaluation,
            verdict=verdict(evaluation),
            parts=self._parts.asked,
            restored=self._parts.restored,
            artifacts=self._artifacts,
            provenance=Provenance.of(JOB, spec.seed, device=spec.device),
        )
        result.provenance.versions |= self._versions | self._images.versions
        result.warnings = cautions.of(spec, result)
        return present(result, found)

    def _outputs(self) -> Outputs:
        spec = self._spec
        if spec.outputs is not None:
            return given(spec.outputs, self._ctx)
        assert spec.dataset is not None, "the spec was checked"
        early = spec.early
        part = EarlyPart(
            **{name: getattr(early, name) for name in ClassifierRecipe.model_fields},
            dataset=spec.dataset,
            epochs=None if early.epochs == "auto" else early.epochs,
            of=early.of,
            seed=spec.seed,
            device=spec.device,
        )
        (child,) = self._parts.all(EARLY_PART, [part], "training early")
        made = self._early = EarlyMade.model_validate(child.result)
        with child.open("outputs.npz") as reader:
            arrays = loadz(reader.read())
        self._versions |= made.versions
        return Outputs(
            arrays["logits"], arrays["labels"], made.classes, made.epoch, arrays["later"]
        )

    def _plan(self, found: Planned) -> AugmentationPlan:
        labels, classes = found.outputs.labels, found.outputs.classes
        size = np.bincount(labels, minlength=len(classes))
        new = np.bincount(labels, weights=found.copies, minlength=len(classes)).astype(np.int64)
        slow = np.bincount(labels[found.slow], minlength=len(classes))
        after = size + new
        rows = len(labels)

        def mean(part: BoolArray) -> float | None:
            return float(found.losses[part].mean()) if part.any() else None

        early = self._early
        return AugmentationPlan(
            rule=self._spec.rule,
            epoch=found.outputs.epoch,
            rows=rows,
            slow=int(found.slow.sum()),
            slow_share=float(found.slow.mean()),
            factor=self._spec.times,
            new_images=found.total,
            set_size=rows + found.total,
            per_class=[
                ClassPlan(
                    name=name,
                    rows=int(size[kind]),
                    slow=int(slow[kind]),
                    unsplit=found.splits[kind].unsplit,
                    mean_loss_slow=mean(found.slow & (labels == kind)),
                    mean_loss_fast=mean(~found.slow & (labels == kind)),
                    new_images=int(new[kind]),
                    size_after=int(after[kind]),
                )
                for kind, name in enumerate(classes)
            ],
            class_ratio_before=_ratio(size),
            class_ratio_after=_ratio(after),
            stability=None
            if early is None or found.agreement is None
            else Stability(second_epoch=early.second_epoch, adjusted_rand=found.agreement),
            suspected_noise=None if found.noise is None else int(found.noise.sum()),
            generation=self._images.cost,
        )


def _ratio(sizes: IntArray) -> float:
    """Largest class over the smallest that has rows."""
    there = sizes[sizes > 0]
    return float(there.max() / there.min())
