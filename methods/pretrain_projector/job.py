"""Runs a pretrain-projector job: features once, a run for each weight and seed, prompts to all."""

from __future__ import annotations

from typing import Any

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef, ModelRef
from methods.measure_modality_gap.safety.asking import Answered, Asked, Images, ask
from methods.parts import Parts
from methods.pretrain_projector.child_jobs import (
    FEATURES_PART,
    RUN_PART,
    FeaturesMade,
    FeaturesPart,
    RunMade,
    RunPart,
)
from methods.pretrain_projector.outcome import cautions, saving
from methods.pretrain_projector.outcome.blocks import present
from methods.pretrain_projector.outcome.comparing import (
    Trained,
    by_weight,
    caption_loss,
    choose,
    compare,
)
from methods.pretrain_projector.reading import is_held_out, read_rows, texts_of
from methods.pretrain_projector.result import ProjectorRun, Result
from methods.pretrain_projector.settings import Penalty, Recipe
from methods.pretrain_projector.spec import JOB, Spec
from methods.results import ArtifactRef, Interval, Provenance, counted
from methods.row_files import invalid_rows
from methods.statistics import student_interval, wilson_interval

#: Captions of a part that reads images.
_CAPTIONS_A_PART = 512
#: Features beyond this are not stored but computed in every run.
_MOST_STORED = 16 << 30


def run(spec: Spec, ctx: RunContext) -> Result:
    """Train projectors with and without a penalty; see `Spec` and `Result`."""
    return _Job(spec, ctx).run()


class _Job:
    def __init__(self, spec: Spec, ctx: RunContext) -> None:
        self._spec, self._ctx, self._parts = spec, ctx, Parts(ctx)
        self._warnings: list[str] = []
        self._bad: list[dict[str, Any]] = []
        #: Every step of every run, by its name.
        self._history: dict[str, list[dict[str, Any]]] = {}

    def run(self) -> Result:
        spec, ctx = self._spec, self._ctx
        every = read_rows(spec.captions, ctx)
        rows, features = self._features(len(every))
        texts = texts_of(spec.captions, every, rows)
        held = [
            row
            for row, text in zip(rows, texts, strict=True)
            if is_held_out(text, spec.held_out, spec.seed)
        ]
        trained, artifacts = self._train(rows, features)
        said = self._ask(trained, held)
        baselines = {one.part.seed: one for one in trained if one.part.penalty is None}
        compared = [
            compare(one, baselines[one.part.seed])
            for one in trained
            if one.part.penalty is not None and one.part.seed in baselines
        ]
        weights = by_weight(compared)
        runs = self._runs(trained, said, artifacts)
        usable = {
            weight: all(cautions.carries(one) for one in runs if one.weight == weight)
            for weight in {one.weight for one in runs}
        }
        chosen = choose(weights, spec.max_caption_loss_rise, usable)
        result = Result(
            runs=runs,
            comparison=compared,
            weights=weights,
            chosen=chosen,
            judge=None if said is None else said.found.judge,
            captions=len(rows),
            held_out=len(held),
            skipped=len({one["row"] for one in self._bad}),
            parts=self._parts.asked,
            restored=self._parts.restored,
            artifacts=artifacts,
            provenance=Provenance.of(JOB, spec.seed, device=spec.device),
        )
        result.provenance.versions |= trained[0].made.versions
        result.warnings = [*self._warnings, *cautions.of(spec, result, trained, said)]
        result.artifacts |= saving.files(spec, result, trained, said, ctx)
        return present(result, trained, said, self._history)

    def _features(self, count: int) -> tuple[list[int], list[InputRef] | None]:
        """Usable rows, and the files with what the vision tower makes of their images."""
        spec = self._spec
        specs = [
            FeaturesPart(
                model=spec.model,
                captions=spec.captions,
                start=start,
                stop=min(start + _CAPTIONS_A_PART, count),
                store=True,
                device=spec.device,
            )
            for start in range(0, count, _CAPTIONS_A_PART)
        ]
        # The first one says how large they are.
        first, *others = specs
        ordered = self._read([first])
        stored = ordered[0].bytes * len(specs) <= _MOST_STORED
        if not stored:
            others = [one.model_copy(update={"store": False}) for one in others]
            self._warnings.append(
                "Features of all images would take more than "
                f"{_MOST_STORED >> 30} GiB: they are computed anew in every run."
            )
        ordered += self._read(others)
        self._bad = [fault for one in ordered for fault in one.bad]
        if self._bad and spec.on_bad_rows == "refuse":
            raise invalid_rows("captions", self._bad, count)
        rows = [row for one in ordered for row in one.rows]
        if not rows:
            raise JobError("input_invalid", "captions: there is no usable row in it.")
        if self._bad:
            fault = self._bad[0]
            self._warnings.append(
                f"{counted(len({one['row'] for one in self._bad}), 'row')} of captions left out; "
                f"the first is row {fault['row']}: {fault['field']} {fault['problem']}."
            )
        files = [InputRef(one.file) for one in ordered if one.rows and one.file is not None]
        return rows, files if stored else None

    def _read(self, specs: list[FeaturesPart]) -> list[FeaturesMade]:
        children = self._parts.all(FEATURES_PART, specs, "reading images")
        return [FeaturesMade.model_validate(child.result) for child in children]

    def _train(
        self, rows: list[int], features: list[InputRef] | None
    ) -> tuple[list[Trained], dict[str, ArtifactRef]]:
        spec = self._spec
        recipe = {name: getattr(spec, name) for name in Recipe.model_fields}
        wanted: list[tuple[float, int]] = []
        weights = [] if spec.penalty is None else spec.penalty.weight
        for weight in [*([0.0] if spec.baseline else []), *weights]:
            wanted += [(weight, spec.seed + number) for number in range(spec.seeds)]
        specs = [
            RunPart(
                **recipe,
                model=spec.model,
                captions=spec.captions,
                rows=rows,
                features=features,
                held_out=spec.held_out,
                split_seed=spec.seed,
                penalty=self._penalty(weight),
                measure=spec.measure,
                whole=spec.save == "model",
                seed=seed,
                device=spec.device,
            )
            for weight, seed in wanted
        ]
        trained: list[Trained] = []
        artifacts: dict[str, ArtifactRef] = {}
        children = self._parts.all(RUN_PART, specs, "training", "runs")
        for child, part, (weight, seed) in zip(children, specs, wanted, strict=True):
            name = saving.name_of(weight, seed)
            made = RunMade.model_validate(child.result)
            trained.append(Trained(name, weight, part, made))
            artifacts |= saving.projector(name, child, made, self._parts)
            self._history[name] = saving.history_of(child)
        artifacts["training.jsonl"] = saving.training(self._history, self._ctx)
        return trained, artifacts

    def _penalty(self, weight: float) -> Penalty | None:
        asked = self._spec.penalty
        if asked is None or weight == 0:
            return None
        return Penalty(
            kind=asked.kind,
            weight=weight,
            alpha=None if asked.alpha == "auto" else asked.alpha,
            warmup_steps=asked.warmup_steps,
        )

    def _ask(self, trained: list[Trained], held: list[int]) -> Answered | None:
        spec = self._spec
        if spec.safety is None:
            return None
        # Without an image no projector is in play: the declared model says it for all.
        models = [Asked(one.name, ModelRef(one.made.model.id), alone=spec.model) for one in trained]
        images = Images(spec.captions, held)
        said = ask(models, spec.safety, images, spec.seed, spec.device, self._parts, self._ctx)
        for one, under in zip(trained, said.answered, strict=True):
            one.answered = under
        return said

    def _runs(
        self, trained: list[Trained], said: Answered | None, artifacts: dict[str, ArtifactRef]
    ) -> list[ProjectorRun]:
        found = []
        for place, one in enumerate(trained):
            made, penalty = one.made, one.part.penalty
            loss = caption_loss(made)
            gains = np.array(made.shuffled) - np.array(made.losses)
            tokens = np.array(made.tokens)
            exact: Interval | None = None
            if made.exact:
                exact = wilson_interval(sum(made.exact), len(made.exact))
            found.append(
                ProjectorRun(
                    name=one.name,
                    weight=one.weight,
                    kind=None if penalty is None else penalty.kind,
                    seed=one.part.seed,
                    alpha=made.alpha,
                    caption_loss=loss,
                    caption_loss_shuffled=float(np.array(made.shuffled) @ tokens / tokens.sum()),
                    information=student_interval(gains),
                    exact_match=exact,
                    variance_ratio=made.variance_ratio,
                    norm_ratio=made.input.norm_ratio,
                    mir=made.mir,
                    input=made.input,
                    safety=[] if said is None else said.found.subjects[place].conditions,
                    model=artifacts[saving.model_file(one.name)],
                    projector=artifacts[saving.projector_file(one.name)],
                )
            )
        return found
