"""Runs an align-safety job: checks, trains, asks, judges, chooses, and says what it cost."""

from __future__ import annotations

import json

from methods.align_safety.asking import Asking
from methods.align_safety.blocks import present
from methods.align_safety.child_jobs import (
    TRAIN_PART,
)
from methods.align_safety.outcome import cautions, saving
from methods.align_safety.outcome.scored import (
    Trained,
    best,
    chosen,
    overall,
    score,
    trained_of,
)
from methods.align_safety.overlap.grouping import about_rounding
from methods.align_safety.overlap.spec import (
    OVERLAP_JOB,
    PROJECT_JOB,
    AdapterFrom,
    OverlapResult,
    OverlapSpec,
    ProjectResult,
    ProjectSpec,
    WeightsFrom,
    WeightUpdate,
)
from methods.align_safety.preparing import Prepared, prepare
from methods.align_safety.result import (
    AlignmentWork,
    ConfigurationTrained,
    OverlapFound,
    Result,
)
from methods.align_safety.spec import JOB, Spec
from methods.align_safety.training.part import TrainMade, TrainPart
from methods.align_safety.training.settings import TuningConfiguration
from methods.children import Child
from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import ModelRef
from methods.parts import Parts, Phases
from methods.responses.counting.gates import front_of
from methods.responses.counting.rates import Response, rates_of
from methods.responses.scoring import (
    judge_used,
    sample_pairs,
)
from methods.results import Provenance

#: Prompts of a part: about a minute of a small model on a CPU.
_PROMPTS_A_PART = 256


def run(spec: Spec, ctx: RunContext) -> Result:
    """Tune a model for safety; see `Spec` and `Result`."""
    return _Job(spec, ctx).run()


class _Job:
    def __init__(self, spec: Spec, ctx: RunContext) -> None:
        self._spec, self._ctx = spec, ctx
        self._parts, self._phases = Parts(ctx), Phases()
        made = ctx.models.is_made(spec.model)
        #: The declared model that all adapters change; None: a job made the base whole.
        self._root = ctx.models.base_of(spec.model) if made else str(spec.model)
        self._history: list[str] = []
        self._versions: dict[str, str] = {}
        self._warnings: list[str] = []

    def run(self) -> Result:
        spec, ctx = self._spec, self._ctx
        with self._phases.of("checking"):
            prepared = prepare(spec, ctx)
        asking = Asking(spec, prepared, self._root, self._parts, ctx)
        answers = spec.evaluate.responses == "job"
        with self._phases.of("training"):
            trainings, trained = self._train(prepared)
        before: list[Response] = []
        if answers:
            with self._phases.of("responses"):
                before = asking.ask(trained, with_baseline=True)
        baseline = rates_of(before)
        scored = [score(one, before, baseline, spec.gates) for one in trained]
        if spec.after is not None and answers:
            with self._phases.of("variants"):
                variants = self._variants(trained[best(scored)])
                asking.ask(variants)
            trained += variants
            scored += [score(one, before, baseline, spec.gates) for one in variants]
        place, finest = chosen(scored), best(scored)
        with self._phases.of("overlap"):
            overlap, overlap_file = self._overlap(trained[finest])
        ctx.progress("writing", 0, 1, "steps")
        everything = [*before, *(one for own in trained for one in own.responses)]
        result = Result(
            baseline=baseline,
            checkpoints=scored,
            configurations=trainings,
            front=front_of(scored),
            chosen=place,
            verdict=overall(scored, place),
            overlap=overlap,
            data=prepared.data,
            judge=judge_used(everything, spec.judge),
            samples=sample_pairs(before, trained[finest].responses, spec.show_harmful),
            work=AlignmentWork(
                parts=self._parts.asked,
                restored=self._parts.restored,
                prompt_tokens=asking.prompt_tokens,
                completion_tokens=asking.completion_tokens,
                seconds=self._phases.seconds,
            ),
            artifacts={},
            provenance=Provenance.of(
                JOB,
                spec.seed,
                device=spec.device,
                responses="server" if asking.server else "transformers" if answers else "given",
            ),
        )
        result.provenance.versions |= self._versions
        result.warnings = [
            *prepared.warnings,
            *self._warnings,
            *cautions.of(spec, result),
        ]
        result.artifacts = saving.save(
            spec,
            result,
            before,
            trained,
            saving.Files(self._root, self._history, overlap_file),
            ctx,
        )
        return present(result, spec)

    def _train(self, prepared: Prepared) -> tuple[list[ConfigurationTrained], list[Trained]]:
        spec = self._spec
        wanted = [(one, rate) for one in spec.configurations for rate in one.learning_rate]
        parts = [
            TrainPart(
                model=spec.model,
                train=spec.train,
                mix=spec.benign_mix,
                template=spec.template,
                training=one.at(rate),
                seed=spec.seed,
                device=spec.device,
            )
            for one, rate in wanted
        ]
        ended: dict[int, tuple[ConfigurationTrained, list[Trained]]] = {}
        for child in self._parts.ask(TRAIN_PART, parts, "training", "trainings"):
            ended[child.place] = self._trained(*wanted[child.place], child)
            self._ctx.partial(
                {"trainings": [one.model_dump(exclude={"modules"}) for one, _ in ended.values()]}
            )
        reports = [ended[place][0] for place in range(len(parts))]
        trained = [one for place in range(len(parts)) for one in ended[place][1]]
        if not trained:
            first = reports[0]
            raise JobError(
                "numerical_failure",
                f"The loss of {first.configuration!r} was not finite at step "
                f"{first.failed_at_step}, at the rate {first.learning_rate:g}"
                + (", and so of all others" if len(reports) > 1 else "")
                + "; lower learning_rate.",
                details={"step": first.failed_at_step, "learning_rate": first.learning_rate},
            )
        return reports, trained

    def _trained(
        self, one: TuningConfiguration, rate: float, child: Child
    ) -> tuple[ConfigurationTrained, list[Trained]]:
        made = TrainMade.model_validate(child.result)
        self._versions |= made.versions
        with child.open("training.jsonl") as reader:
            for line in reader.read().decode().splitlines():
                entry = {"configuration": one.name, "learning_rate_of": rate, **json.loads(line)}
                self._history.append(json.dumps(entry))
        failed = made.failed
        report = ConfigurationTrained(
            configuration=one.name,
            learning_rate=rate,
            state="trained" if failed is None else "failed",
            failed_at_step=None if failed is None else failed.step,
            scale=one.scale,
            trainable=made.trainable,
            modules=made.modules,
        )
        found = [trained_of(one, rate, checkpoint, child) for checkpoint in made.checkpoints]
        # What a failed training left is no model to choose.
        return report, [] if failed is not None else found

    def _variants(self, one: Trained) -> list[Trained]:
        """Changed forms of an adapter; of a model that was trained whole there are none."""
        after = self._spec.after
        assert after is not None, "asked for"
        if not one.is_adapter or self._root is None or not after.variants():
            self._warnings.append(
                f"{one.name} has no adapter of a declared model, so no variants were made of it."
            )
            return []
        project = ProjectSpec(
            adapter=AdapterFrom(model=ModelRef(one.model)),
            base=WeightsFrom(model=ModelRef(self._root)),
            variants=after.variants(),
        )
        found = []
        for child in self._parts.ask(PROJECT_JOB, [project], "projecting", "adapters"):
            made = ProjectResult.model_validate(child.result)
            for variant in made.variants:
                assert variant.model is not None, "the base has a name"
                found.append(
                    Trained(
                        configuration=one.configuration,
                        learning_rate=one.learning_rate,
                        epoch=one.epoch,
                        step=one.step,
                        loss=None,
                        variant=variant.label,
                        model=variant.model.id,
                        child=child,
                        artifact=variant.model.name,
                    )
                )
        return found

    def _overlap(self, one: Trained) -> tuple[OverlapFound | None, bytes]:
        root = self._root
        if root is None:
            return None, b""
        model = ModelRef(one.model)
        update = (
            WeightUpdate(adapter=AdapterFrom(model=model))
            if one.is_adapter
            else WeightUpdate(tuned=WeightsFrom(model=model))
        )
        part = OverlapSpec(
            base=WeightsFrom(model=ModelRef(root)),
            update=update,
            k=self._spec.overlap_k,
            any_type=True,
        )
        try:
            return self._measured(one, part)
        except JobError as error:
            if error.origin != "user":
                raise
            # A report beside the result, which is there already.
            self._warnings.append(f"The overlap could not be measured: {error.message}")
            return None, b""

    def _measured(self, one: Trained, part: OverlapSpec) -> tuple[OverlapFound | None, bytes]:
        for child in self._parts.ask(OVERLAP_JOB, [part], "overlap", "models"):
            made = OverlapResult.model_validate(child.result)
            with child.open("overlap.csv") as reader:
                data = reader.read()
            found = OverlapFound(
                of=one.name,
                matrices=made.matrices,
                by_kind=made.by_kind,
                by_layer=made.by_layer,
            )
            self._warnings += about_rounding(made.matrices)
            return found, data
        raise AssertionError("one child was asked for")
