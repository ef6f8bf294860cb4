"""Runs a plan-augmentation job: outputs, plan, images, trainings, verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from methods.arrays.npz import loadz
from methods.children import Child
from methods.context import RunContext
from methods.jobtype import InputRef
from methods.parts import Parts
from methods.plan_augmentation.child_jobs import (
    ARM_PART,
    EARLY_PART,
    GENERATOR_PART,
    IMAGES_PART,
    ArmMade,
    ArmPart,
    EarlyMade,
    EarlyPart,
    EarlyPoint,
    GeneratorMade,
    GeneratorPart,
    ImagesMade,
    ImagesPart,
)
from methods.plan_augmentation.outcome import cautions, saving
from methods.plan_augmentation.outcome.blocks import present
from methods.plan_augmentation.outcome.verdict import Trainings, compared, verdict
from methods.plan_augmentation.planning.counts import steps_of
from methods.plan_augmentation.planning.plan import Couple, Planned, controls, count, couples, plan
from methods.plan_augmentation.planning.reading import Outputs, given
from methods.plan_augmentation.result import (
    AugmentationPlan,
    ClassPlan,
    EarlyEpoch,
    GeneratedImages,
    GenerationCost,
    Result,
    Stability,
)
from methods.plan_augmentation.settings import ArmName, ClassifierRecipe, TrainedGenerator
from methods.plan_augmentation.spec import JOB, Spec
from methods.results import ArtifactRef, Provenance
from methods.typing import BoolArray, IntArray

#: Rows with copies, or new images that are added.
Set = tuple[list[int] | None, list[Couple]]
#: Images of a part: some ten seconds of a tiny model, minutes of a large one.
_A_PART = {"train": 1_024, "pipeline": 64}


def run(spec: Spec, ctx: RunContext) -> Result:
    """Plan, make and test; see `Spec` and `Result`."""
    return _Job(spec, ctx).run()


class _Job:
    def __init__(self, spec: Spec, ctx: RunContext) -> None:
        self._spec, self._ctx, self._parts = spec, ctx, Parts(ctx)
        self._artifacts: dict[str, ArtifactRef] = {}
        self._versions: dict[str, str] = {}
        self._early: EarlyMade | None = None
        self._images = _Images(spec, self._parts, ctx)

    def run(self) -> Result:
        spec, ctx = self._spec, self._ctx
        outputs = self._outputs()
        found = plan(spec, outputs, ctx.check)
        trainings = _Arms(spec, len(outputs.labels), self._parts)
        if spec.evaluate is not None:
            # First: what it gets wrong in the end may be labelled wrong.
            found.noise = found.slow & trainings.plain()
            count(found, spec)
        generated = None
        if spec.mode == "generate":
            generated = self._generate(found, trainings.judge)
        if spec.evaluate is not None:
            trainings.others(found, self._images)
        evaluation = compared(trainings.found)
        self._artifacts |= saving.plan_files(found, spec, ctx)
        self._artifacts |= self._images.artifacts
        result = Result(
            plan=self._plan(found),
            early=[EarlyEpoch(**one.model_dump()) for one in self._curve],
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

    @property
    def _curve(self) -> list[EarlyPoint]:
        return [] if self._early is None else self._early.curve

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
        child = next(iter(self._parts.ask(EARLY_PART, [part], "training early")))
        made = self._early = EarlyMade.model_validate(child.result)
        with child.open("outputs.npz") as reader:
            arrays = loadz(reader.read())
        self._versions |= made.versions
        return Outputs(
            arrays["logits"], arrays["labels"], made.classes, made.epoch, arrays["later"]
        )

    def _generate(self, found: Planned, judge: Judging | None) -> GeneratedImages:
        """Make the images of the plan and of its controls, and look at them."""
        from methods.plan_augmentation.making.presenting import look

        spec = self._spec
        wanted = couples(found.copies)
        evaluated = [] if spec.evaluate is None else spec.evaluate.arms
        extra = [
            own
            for name, copies in controls(found, spec).items()
            if name in evaluated
            for own in couples(copies)
        ]
        plan_only = set(wanted)
        others = sorted({one for one in extra if one not in plan_only})
        self._images.make(wanted, others)
        there = self._images.there(wanted)
        looked = look(spec, there, self._images.archives, found, judge, self._ctx)
        self._artifacts |= looked.artifacts
        return GeneratedImages(
            images=len(there),
            failed=len(wanted) - len(there),
            label_kept=looked.label_kept,
            distance_to_source=float(looked.distances.to_source.mean()),
            distance_within_class=looked.distances.within_class,
            near_copies=looked.near_copies,
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


class _Images:
    """New images: asked for in parts, and found again.

    Attributes:
        archives: what they are in. artifacts: archives and generator as the job's own.
    """

    def __init__(self, spec: Spec, parts: Parts, ctx: RunContext) -> None:
        self._spec, self._parts, self._ctx = spec, parts, ctx
        self._failed: set[Couple] = set()
        self.archives: list[InputRef] = []
        self.artifacts: dict[str, ArtifactRef] = {}
        self.versions: dict[str, str] = {}
        self.cost: GenerationCost | None = None

    def there(self, wanted: list[Couple]) -> list[Couple]:
        """Those that came out."""
        return [one for one in wanted if one not in self._failed]

    def make(self, wanted: list[Couple], others: list[Couple]) -> None:
        """Make images, in shards that another factor finds again.

        Args:
            others: of controls; in shards of their own, so that they change none of the plan's.
        """
        spec = self._spec
        assert spec.dataset is not None, "the spec was checked"
        assert spec.generator is not None, "the spec was checked"
        weights = None
        if isinstance(spec.generator, TrainedGenerator):
            weights = self._trained(spec.generator)
        parts = [
            ImagesPart(
                dataset=spec.dataset,
                generator=spec.generator,
                weights=weights,
                class_names=spec.class_names,
                wanted=shard,
                seed=spec.seed,
                device=spec.device,
            )
            for part in (wanted, others)
            for shard in shards(part, _A_PART[spec.generator.kind])
        ]
        total = len(wanted) + len(others)
        spent, made = 0.0, 0
        found: dict[int, ImagesMade] = {}
        for child in self._parts.ask(IMAGES_PART, parts, "making images"):
            one = found[child.place] = ImagesMade.model_validate(child.result)
            if not child.reused and one.made:
                if not made:
                    hours = one.seconds / one.made * total / 3600
                    self._ctx.log.info("About %.2f hours of one worker for all images.", hours)
                spent, made = spent + one.seconds, made + one.made
            name = f"images-{child.place:05d}.zip"
            with child.open("images.zip") as reader:
                self.artifacts[name] = self._ctx.save_artifact(
                    name, reader.read(), "application/zip"
                )
        ordered = [found[place] for place in range(len(parts))]
        self._failed = {one for part in ordered for one in part.failed}
        self.archives = [InputRef(one.file) for one in ordered]
        each = spent / made if made else None
        self.cost = GenerationCost(
            images=total,
            seconds_an_image=each,
            hours=None if each is None else each * total / 3600,
        )
        if ordered:
            self.versions = ordered[0].versions

    def _trained(self, asked: TrainedGenerator) -> InputRef:
        spec = self._spec
        assert spec.dataset is not None, "the spec was checked"
        part = GeneratorPart(
            **asked.model_dump(), dataset=spec.dataset, seed=spec.seed, device=spec.device
        )
        child = next(iter(self._parts.ask(GENERATOR_PART, [part], "training the generator")))
        with child.open("generator.safetensors") as reader:
            self.artifacts["generator.safetensors"] = self._ctx.save_artifact(
                "generator.safetensors", reader.read(), "application/octet-stream"
            )
        return InputRef(GeneratorMade.model_validate(child.result).file)


def shards(wanted: Sequence[Couple], size: int) -> list[list[Couple]]:
    """Couples in parts by the number of the copy and ranges of rows: what a larger factor adds
    are further parts."""
    found: dict[tuple[int, int], list[Couple]] = {}
    for row, copy in wanted:
        found.setdefault((copy, row // size), []).append((row, copy))
    return [found[key] for key in sorted(found)]


@dataclass(frozen=True)
class Judging:
    """A trained classifier that says whether labels fit."""

    weights: Child
    model: str
    accuracy: float


class _Arms:
    """Trainings of the arms.

    Attributes:
        found: by arm, in the order of the request. judge: the first plain training.
    """

    def __init__(self, spec: Spec, rows: int, parts: Parts) -> None:
        self._spec, self._rows, self._parts = spec, rows, parts
        self._trained: dict[ArmName, Trainings] = {}
        self.judge: Judging | None = None

    @property
    def found(self) -> dict[ArmName, Trainings]:
        asked = self._spec.evaluate
        return {} if asked is None else {name: self._trained[name] for name in asked.arms}

    def plain(self) -> BoolArray:
        """Train on the data as they are.

        Returns:
            (N,) which rows the first training gets wrong in the end.
        """
        made = self._train({"plain": (None, [])}, [])["plain"]
        wrong = np.zeros(self._rows, dtype=np.bool_)
        wrong[made[0].wrong] = True
        return wrong

    def others(self, found: Planned, images: _Images) -> None:
        """Train on what the plan makes of the data, and on its controls."""
        spec = self._spec
        assert spec.evaluate is not None, "called where arms are asked for"
        wanted = {"targeted": found.copies, **controls(found, spec)}
        sets: dict[ArmName, Set] = {}
        for name in spec.evaluate.arms:
            if name == "upsample-2":
                sets[name] = ((1 + (found.targets > 0)).tolist(), [])
            elif name != "plain" and spec.mode == "generate":
                sets[name] = (None, images.there(couples(wanted[name])))
            elif name != "plain":
                sets[name] = ((1 + wanted[name]).tolist(), [])
        self._train(sets, images.archives)

    def _train(
        self, sets: dict[ArmName, Set], archives: list[InputRef]
    ) -> dict[ArmName, list[ArmMade]]:
        spec, asked = self._spec, self._spec.evaluate
        assert asked is not None, "called where arms are asked for"
        assert spec.dataset is not None, "the spec was checked"
        recipe = {name: getattr(asked, name) for name in ClassifierRecipe.model_fields}
        parts, owners, steps = [], [], {}
        for name, (repeats, use) in sets.items():
            count = (self._rows if repeats is None else sum(repeats)) + len(use)
            own = self._rows if asked.budget == "equal-steps" else count
            steps[name] = steps_of(asked.epochs, own, asked.batch_size)
            for number in range(asked.runs):
                owners.append(name)
                parts.append(
                    ArmPart(
                        **recipe,
                        dataset=spec.dataset,
                        repeats=repeats,
                        images=archives if use else [],
                        use=use,
                        steps=steps[name],
                        run=number,
                        seed=spec.seed,
                        keep_weights=name == "plain" and number == 0,
                        device=spec.device,
                    )
                )
        found: dict[int, ArmMade] = {}
        for child in self._parts.ask(ARM_PART, parts, "training arms", "trainings"):
            made = found[child.place] = ArmMade.model_validate(child.result)
            if parts[child.place].keep_weights:
                self.judge = Judging(child, asked.model, made.accuracy)
        by_arm: dict[ArmName, list[ArmMade]] = {name: [] for name in sets}
        for place, name in enumerate(owners):
            by_arm[name].append(found[place])
        for name, own_made in by_arm.items():
            self._trained[name] = Trainings(
                own_made[0].images, steps[name], [one.accuracy for one in own_made]
            )
        return by_arm
