"""Runs an align-safety job: checks, trains, asks, judges, chooses, and says what it cost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from pydantic import BaseModel

from methods.align_safety.blocks import present
from methods.align_safety.child_jobs import (
    RESPONSES_PART,
    TRAIN_PART,
    ResponsesMade,
    ResponsesPart,
)
from methods.align_safety.outcome import cautions, saving
from methods.align_safety.outcome.scored import (
    Trained,
    best,
    chosen,
    front,
    overall,
    score,
    trained_of,
)
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
from methods.jobtype import InputRef, JobType, ModelRef
from methods.responses.importing import import_responses
from methods.responses.judged import Judged
from methods.responses.rates import Response, rates_of
from methods.responses.schema import RubricJudge, RuleJudge, SetName
from methods.responses.scoring import (
    as_response,
    judge_used,
    phrases_of,
    put_judgements,
    sample_pairs,
)
from methods.responses.spec import JOB as JUDGE_PART
from methods.responses.spec import JudgePart
from methods.results import Provenance
from methods.seeds import derived_seed

#: Prompts of a part: about a minute of a small model on a CPU.
_PROMPTS_A_PART = 256


def run(spec: Spec, ctx: RunContext) -> Result:
    """Tune a model for safety; see `Spec` and `Result`."""
    return _Job(spec, ctx).run()


class _Job:
    def __init__(self, spec: Spec, ctx: RunContext) -> None:
        self._spec, self._ctx = spec, ctx
        self._parts = self._restored = 0
        self._tokens = [0, 0]
        self._seconds: dict[str, float] = {}
        made = ctx.models.is_made(spec.model)
        #: The declared model that all adapters change; None: a job made the base whole.
        self._root = ctx.models.base_of(spec.model) if made else str(spec.model)
        self._server = None if self._root is None else ctx.models.server_of(self._root)
        self._history: list[str] = []
        self._versions: dict[str, str] = {}
        self._warnings: list[str] = []

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        spent = self._seconds.get(name, 0.0) + time.monotonic() - began
        self._seconds[name] = round(spent, 3)

    def run(self) -> Result:
        spec, ctx = self._spec, self._ctx
        with self._phase("checking"):
            prepared = prepare(spec, ctx)
        answers = spec.evaluate.responses == "job"
        with self._phase("training"):
            trainings, trained = self._train(prepared)
        before: list[Response] = []
        if answers:
            with self._phase("responses"):
                models = [self._baseline(), *(ModelRef(one.model) for one in trained)]
                before, *after = self._answered(models, prepared)
                for one, own in zip(trained, after, strict=True):
                    one.responses = own
        baseline = rates_of(before)
        scored = [score(one, before, baseline, spec.gates) for one in trained]
        if spec.after is not None and answers:
            with self._phase("variants"):
                variants = self._variants(trained[best(scored)])
                found = self._answered([ModelRef(one.model) for one in variants], prepared)
                for one, own in zip(variants, found, strict=True):
                    one.responses = own
            trained += variants
            scored += [score(one, before, baseline, spec.gates) for one in variants]
        place, finest = chosen(scored), best(scored)
        with self._phase("overlap"):
            overlap, overlap_file = self._overlap(trained[finest])
        ctx.progress("writing", 0, 1, "steps")
        everything = [*before, *(one for own in trained for one in own.responses)]
        result = Result(
            baseline=baseline,
            checkpoints=scored,
            configurations=trainings,
            front=front(scored),
            chosen=place,
            verdict=overall(scored, place),
            overlap=overlap,
            data=prepared.data,
            judge=judge_used(everything, spec.judge),
            samples=sample_pairs(before, trained[finest].responses, spec.show_harmful),
            work=AlignmentWork(
                parts=self._parts,
                restored=self._restored,
                prompt_tokens=self._tokens[0],
                completion_tokens=self._tokens[1],
                seconds=self._seconds,
            ),
            artifacts={},
            provenance=Provenance.of(
                JOB,
                spec.seed,
                device=spec.device,
                responses="server" if self._server else "transformers" if answers else "given",
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

    # --- parts ---------------------------------------------------------------------------------

    def _children(
        self, kind: JobType, specs: Sequence[BaseModel], phase: str, unit: str
    ) -> Iterator[Child]:
        self._ctx.progress(phase, 0, len(specs), unit)
        for done, child in enumerate(self._ctx.fan_out(kind.name, specs), start=1):
            self._parts += 1
            self._restored += child.reused
            self._ctx.progress(phase, done, len(specs), unit)
            yield child

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
        for child in self._children(TRAIN_PART, parts, "training", "trainings"):
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

    def _baseline(self) -> ModelRef:
        """What is asked as the model before: its server, where it has one."""
        is_root = str(self._spec.model) == self._root
        return ModelRef(self._server if self._server and is_root else self._spec.model)

    def _answered(self, models: Sequence[ModelRef], prepared: Prepared) -> list[list[Response]]:
        """Responses of models to all prompts, judged; all models side by side."""
        spec = self._spec
        parts, owners = [], []
        for owner, model in enumerate(models):
            for name, rows in prepared.sets.items():
                for start in range(0, len(rows), _PROMPTS_A_PART):
                    owners.append((owner, name))
                    parts.append(
                        ResponsesPart(
                            model=model,
                            set=name,
                            prompts=prepared.given[name],
                            rows=[one.row for one in rows[start : start + _PROMPTS_A_PART]],
                            template=spec.template,
                            sampling=spec.evaluate.sampling,
                            seed=derived_seed(spec.seed, "responses", bits=31),
                            resource=self._resource(model),
                        )
                    )
        found: dict[int, tuple[list[Response], InputRef]] = {}
        for child in self._children(RESPONSES_PART, parts, "answering", "parts"):
            made = ResponsesMade.model_validate(child.result)
            self._tokens[0] += made.prompt_tokens
            self._tokens[1] += made.completion_tokens
            found[child.place] = (
                self._read(child, owners[child.place][1], prepared),
                InputRef(made.file),
            )
        self._judge([found[place] for place in range(len(parts))], owners, prepared)
        answered: list[list[Response]] = [[] for _ in models]
        for place, (owner, _) in enumerate(owners):
            answered[owner] += found[place][0]
        return answered

    def _resource(self, model: ModelRef) -> Literal["cpu", "gpu", "llm"]:
        made = self._ctx.models.is_made(model)
        served = self._server is not None and (made or str(model) == self._server)
        # A full model has no adapter for the server to load.
        adapters = all(one.method == "lora" for one in self._spec.configurations)
        return "llm" if served and (adapters or not made) else self._spec.device

    def _read(self, child: Child, name: SetName, prepared: Prepared) -> list[Response]:
        spec = self._spec
        with child.open("responses.jsonl") as reader:
            given = import_responses(reader.read().decode(), "responses", name).responses
        asked = spec.evaluate.reasoning
        extractor = asked.extractor if asked is not None else "exact"
        phrases = phrases_of(spec.judge)
        tags = spec.template.think_tags
        return [as_response(one, tags, extractor, phrases, prepared.begun) for one in given]

    def _judge(
        self,
        found: Sequence[tuple[list[Response], InputRef]],
        owners: Sequence[tuple[int, SetName]],
        prepared: Prepared,
    ) -> None:
        judge = self._spec.judge
        if isinstance(judge, RuleJudge):
            return
        chosen_parts = [place for place, (_, name) in enumerate(owners) if name == "harmful"]
        resource: Literal["cpu", "gpu", "llm"] = self._spec.device
        if isinstance(judge, RubricJudge) or self._ctx.models.find(judge.model).base_url:
            resource = "llm"
        parts = []
        for place in chosen_parts:
            parts.append(
                JudgePart(
                    judge=judge,
                    responses=found[place][1],
                    think=self._spec.template.think_tags,
                    begun=prepared.begun,
                    resource=resource,
                )
            )
        for child in self._children(JUDGE_PART, parts, "judging", "parts"):
            responses = found[chosen_parts[child.place]][0]
            with child.open("judged.jsonl") as reader:
                lines = [json.loads(line) for line in reader.read().decode().splitlines()]
            judged = [Judged(one["unsafe"], one["raw"] or "", one["score"]) for one in lines]
            places = [
                place if lines[place]["raw"] is not None else -1 for place in range(len(lines))
            ]
            put_judgements(responses, places, judged)

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
        for child in self._children(PROJECT_JOB, [project], "projecting", "adapters"):
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
        for child in self._children(OVERLAP_JOB, [part], "overlap", "models"):
            made = OverlapResult.model_validate(child.result)
            with child.open("overlap.csv") as reader:
                data = reader.read()
            found = OverlapFound(
                of=one.name,
                matrices=made.matrices,
                by_kind=made.by_kind,
                by_layer=made.by_layer,
            )
            self._warnings += [w for w in made.warnings if "hides" in w]
            return found, data
        raise AssertionError("one child was asked for")
