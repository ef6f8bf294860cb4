"""Has images made and looked at, in parts that other jobs find again."""

from __future__ import annotations

from collections.abc import Sequence

from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef
from methods.parts import Parts
from methods.plan_augmentation.child_jobs import (
    GENERATOR_PART,
    IMAGES_PART,
    LOOK_PART,
    GeneratorMade,
    GeneratorPart,
    ImagesMade,
    ImagesPart,
    LookMade,
    LookPart,
)
from methods.plan_augmentation.judge import Judge
from methods.plan_augmentation.planning.plan import Couple
from methods.plan_augmentation.result import GeneratedImages, GenerationCost, LabelKept
from methods.plan_augmentation.settings import TrainedGenerator
from methods.plan_augmentation.spec import Spec
from methods.results import ArtifactRef
from methods.statistics import wilson_interval

#: Images of a part: some ten seconds of a tiny model, minutes of a large one.
_A_PART = {"train": 1_024, "pipeline": 64}


class Images:
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

        Raises:
            JobError: `numerical_failure` where there is nothing to make, or nothing comes out.
        """
        spec = self._spec
        if not wanted:
            raise JobError(
                "numerical_failure",
                f"No row is slow by the rule {spec.rule}, so there is nothing to make images of: "
                "take another rule, or look at an earlier epoch.",
            )
        others = sorted(set(others) - set(wanted))
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
        for child in self._parts.all(IMAGES_PART, parts, "making images"):
            one = ImagesMade.model_validate(child.result)
            self._failed |= set(one.failed)
            self.archives.append(InputRef(one.file))
            self.versions = one.versions
            if not child.reused and one.made:
                if not made:
                    hours = one.seconds / one.made * total / 3600
                    self._ctx.log.info("About %.2f hours of one worker for all images.", hours)
                spent, made = spent + one.seconds, made + one.made
            name = f"images-{child.place:05d}.zip"
            self.artifacts[name] = self._parts.adopt(child, "images.zip", name, "application/zip")
        if not self.there(wanted):
            raise JobError(
                "numerical_failure",
                f"All {len(wanted):,} images came out as one colour: train the generator longer, "
                "or take another strength.",
            )
        each = spent / made if made else None
        self.cost = GenerationCost(
            images=total,
            seconds_an_image=each,
            hours=None if each is None else each * total / 3600,
        )

    def _trained(self, asked: TrainedGenerator) -> InputRef:
        spec = self._spec
        assert spec.dataset is not None, "the spec was checked"
        part = GeneratorPart(
            **asked.model_dump(), dataset=spec.dataset, seed=spec.seed, device=spec.device
        )
        (child,) = self._parts.all(GENERATOR_PART, [part], "training the generator")
        name = "generator.safetensors"
        self.artifacts[name] = self._parts.adopt(child, name, name, "application/octet-stream")
        return InputRef(GeneratorMade.model_validate(child.result).file)

    def look(self, wanted: list[Couple], judge: Judge | None) -> GeneratedImages:
        """Look at the images of the plan that came out."""
        spec, there = self._spec, self.there(wanted)
        assert spec.dataset is not None, "the spec was checked"
        part = LookPart(
            dataset=spec.dataset,
            images=self.archives,
            wanted=there,
            judge=None if judge is None else judge.weights,
            model=None if judge is None else judge.model,
            seed=spec.seed,
            device=spec.device,
        )
        (child,) = self._parts.all(LOOK_PART, [part], "looking at images")
        seen = LookMade.model_validate(child.result)
        files = {"contact_sheet.png": "image/png"}
        files |= {"augmented.npz": "application/x-npz"} if seen.augmented else {}
        for name, kind in files.items():
            self.artifacts[name] = self._parts.adopt(child, name, name, kind)
        kept = None
        if judge is not None and seen.fitting is not None and seen.fitting_sources is not None:
            kept = LabelKept(
                judge="the first plain training",
                accuracy=judge.accuracy,
                generated=wilson_interval(seen.fitting, len(there)),
                sources=wilson_interval(seen.fitting_sources, seen.sources),
            )
        return GeneratedImages(
            images=len(there),
            failed=len(wanted) - len(there),
            label_kept=kept,
            distance_to_source=seen.to_source,
            distance_within_class=seen.within_class,
            near_copies=seen.near_copies,
        )


def shards(wanted: Sequence[Couple], size: int) -> list[list[Couple]]:
    """Couples in parts by the number of the copy and ranges of rows: what a larger factor adds
    are further parts."""
    found: dict[tuple[int, int], list[Couple]] = {}
    for row, copy in wanted:
        found.setdefault((copy, row // size), []).append((row, copy))
    return [found[key] for key in sorted(found)]
