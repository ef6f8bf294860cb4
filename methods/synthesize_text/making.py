"""The child jobs of a synthesize-text job: which parts there are, and what they made."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from pydantic import BaseModel

from methods.arrays.npz import loadz
from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import JobType
from methods.parts import Parts
from methods.synthesize_text.child_jobs import (
    DRAWS_PART,
    FINETUNE_PART,
    SCORES_PART,
    TARGET_PART,
    TEXTS_PART,
    DrawsPart,
    FinetunePart,
    Generator,
    NoisyTarget,
    Optimise,
    RandomVocabulary,
    ScoresMade,
    ScoresPart,
    TargetMade,
    TargetPart,
    TextsMade,
    TextsPart,
)
from methods.synthesize_text.gradients.factors import (
    DENSE_OUTPUTS,
    KEPT_OUTPUTS,
    Factors,
    Target,
    joined,
)
from methods.synthesize_text.gradients.stored_factors import read_scores, read_target
from methods.synthesize_text.seeds import derived_seed
from methods.synthesize_text.spec import GradmmParams, ReferenceParams, Spec
from methods.typing import FloatArray

#: Texts of one request for draws, which is one part: a job that needs more or fewer finds them.
DRAWN_TOGETHER = 32
#: Texts that are optimised together. Fixed, for what stands beside a text changes its last bits;
#: a stack is always whole, and texts beyond those asked for stand in for dropped ones. On a CPU a
#: large model gains nothing by it, so there a stack is one group.
_STACKED = {"cpu": 40, "gpu": 160}
_SCORED_A_PART = 256
#: Gradients that are held at most.
_MOST_BYTES = 8 << 30
#: Weights above which ADMM on a CPU is refused, and multiplications of a core a second.
_MOST_ON_CPU, _OPERATIONS = 50_000_000, 5e10


@dataclass
class Scored:
    """Texts of a label as the model reads them.

    Attributes:
        texts, groups: of each text. factors: gradients with the label's word. probabilities:
            (n, labels). log_loss, tokens: (n,). states: (n, d).
    """

    texts: list[str]
    groups: list[int]
    factors: Factors
    probabilities: FloatArray
    log_loss: FloatArray
    tokens: FloatArray
    states: FloatArray

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, count: int) -> Scored:
        """The first of them."""
        part = slice(count)
        return Scored(
            self.texts[part],
            self.groups[part],
            self.factors.rows(part),
            self.probabilities[part],
            self.log_loss[part],
            self.tokens[part],
            self.states[part],
        )


@dataclass
class Drawn:
    """Texts that a part made, in the order of groups.

    Attributes:
        empty: texts without a letter, which are left out. cut: texts that the generator did not
            end. curves: of each stack, by name (steps, groups).
    """

    texts: list[str] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    empty: int = 0
    cut: int = 0
    curves: list[dict[str, list[list[float]]]] = field(default_factory=list)

    def first(self, count: int) -> Drawn:
        """The first of them."""
        return Drawn(self.texts[:count], self.groups[:count], self.empty, self.cut, self.curves)


class Making:
    """Asks for parts and counts them.

    Attributes:
        parts: its children, counted.
        forward_tokens: that models read or wrote.
        parameters: weights of the model, once they are known.
    """

    def __init__(self, spec: Spec, ctx: RunContext) -> None:
        self._spec, self._ctx = spec, ctx
        self.parts = Parts(ctx)
        self.forward_tokens = self.parameters = 0
        self.words = [label.word for label in spec.labels]
        self.names = [label.name for label in spec.labels]
        generator = spec.generator or Generator(model=spec.model)
        self._generator = generator
        is_server = ctx.models.find(generator.model).base_url is not None
        self._resource = "llm" if is_server else spec.device

    def target_part(self, label: int, public: Sequence[str] = ()) -> TargetPart:
        """The part that computes a label's target."""
        spec = self._spec
        noisy = None
        if spec.privacy is not None:
            noisy = NoisyTarget(**spec.privacy.model_dump(), public=list(public))
        return TargetPart(
            model=spec.model,
            texts=spec.labelled(),
            template=spec.template,
            words=self.words,
            label=label,
            bias=wants_bias(spec),
            privacy=noisy,
            device=spec.device,
        )

    def targets(self, parts: Sequence[TargetPart]) -> list[tuple[TargetMade, Target, bool, bytes]]:
        """What became of targets, in order: the report, the target, whether it was there already,
        and its file."""
        found = []
        for child in self.parts.all(TARGET_PART, parts, "target", "labels"):
            with child.open("target.npz") as reader:
                data = reader.read()
            made = TargetMade.model_validate(child.result)
            found.append((made, read_target(BytesIO(data)), child.reused, data))
        return found

    def draw(self, count: int, word_counts: Sequence[list[int] | None]) -> list[Drawn]:
        """So many texts of each label from the generator."""
        spec, groups = self._spec, math.ceil(count / DRAWN_TOGETHER)
        parts, owners = [], []
        for label, word in enumerate(self.words):
            for group in range(groups):
                owners.append(label)
                parts.append(
                    DrawsPart(
                        generator=self._generator,
                        prompt=spec.instruction.replace("{word}", word),
                        max_tokens=spec.max_tokens,
                        ends="as-is" if spec.lengths == "fixed" else "sentence",
                        word_counts=word_counts[label],
                        group_size=DRAWN_TOGETHER,
                        groups=[group],
                        seed=spec.seed,
                        resource=self._resource,
                    )
                )
        found = self._collected(DRAWS_PART, parts, owners, "drawing")
        return [one.first(count) for one in found]

    def random(self, count: int, tokens: int) -> list[Drawn]:
        """So many texts of random tokens; the same for every label but for their seeds."""
        most = max(count, DRAWN_TOGETHER)
        parts = [
            TextsPart(
                work=RandomVocabulary(model=self._spec.model, tokens=tokens),
                group_size=most,
                groups=[0],
                seed=derived_seed(self._spec.seed, "random", word),
                device=self._spec.device,
            )
            for word in self.words
        ]
        found = self._collected(TEXTS_PART, parts, range(len(parts)), "drawing random tokens")
        return [one.first(count) for one in found]

    def _stack(self, size: int) -> int:
        """Groups of a stack."""
        if self._spec.device == "cpu" and self.parameters > _MOST_ON_CPU:
            return 1
        return max(1, _STACKED[self._spec.device] // size)

    def optimise(
        self, aims: Sequence[TargetPart], starts: Sequence[list[str]], tokens: Sequence[int]
    ) -> tuple[list[Drawn], list[Drawn]]:
        """Texts by ADMM for each label, and those of the first stack aimed at noise instead."""
        spec, params = self._spec, admm_params(self._spec)
        size = params.group_size
        stack = self._stack(size)
        stacks = math.ceil(math.ceil(spec.per_label / size) / stack)
        parts, owners = [], []
        for noise in (False, True):
            for label, aim in enumerate(aims):
                for place in range(1 if noise else stacks):
                    owners.append(label + noise * len(aims))
                    parts.append(
                        TextsPart(
                            work=Optimise(
                                target=aim,
                                noise_target=noise,
                                starts=starts[label],
                                prompt=spec.instruction.replace("{word}", self.words[label]),
                                tokens=tokens[label],
                                ends="as-is"
                                if is_reference(spec) or spec.lengths == "fixed"
                                else "sentence",
                                ban="official" if is_reference(spec) else spec.ban,
                                reference=is_reference(spec),
                                params=params.model_dump(exclude={"max_core_hours"}),
                            ),
                            group_size=size,
                            groups=list(range(place * stack, (place + 1) * stack)),
                            seed=spec.seed,
                            device=spec.device,
                        )
                    )
        found = self._collected(TEXTS_PART, parts, owners, "optimising")
        return found[: len(aims)], found[len(aims) :]

    def check_memory(self, made: TargetMade, count: int) -> None:
        """Raise `JobError('too_large')` where the gradients of all texts would not fit."""
        dense = made.outputs <= DENSE_OUTPUTS
        each = 4 * (made.outputs if dense else 3 * KEPT_OUTPUTS) + 8 * made.width
        total = each * count * len(self.words)
        if total > _MOST_BYTES:
            raise JobError(
                "too_large",
                f"{count:,} texts for each of {len(self.words)} labels have gradients of "
                f"{total / 2**30:,.0f} GiB with this model; at most {_MOST_BYTES / 2**30:,.0f} are "
                "held. Lower per_label or params.over_sample.",
                details={"bytes": total},
            )

    def check_affordable(
        self, made: TargetMade, tokens: Sequence[int], before_drawing: bool = False
    ) -> None:
        """Raise `JobError('too_large')` where ADMM on a CPU would take for ever.

        Args:
            tokens: of a text, for each label; before the texts are drawn at most so many.
        """
        self.parameters = made.parameters
        spec, params = self._spec, admm_params(self._spec)
        if spec.device == "gpu" or made.parameters <= _MOST_ON_CPU:
            return
        # The groups of a label and one more that is aimed at noise.
        texts = (math.ceil(spec.per_label / params.group_size) + 1) * params.group_size
        steps = params.outer_steps * params.inner_steps
        work = texts * sum(tokens)
        hours = 6 * made.parameters * work * steps / _OPERATIONS / 3600
        allowed = params.max_core_hours
        if allowed is None or (hours > allowed and not before_drawing):
            raise JobError(
                "too_large",
                f"{spec.method} with a model of {made.parameters / 1e6:,.0f} million weights would "
                f"take {'up to' if before_drawing else 'about'} {hours:,.1f} hours of one core. "
                "Set device to gpu, take a smaller model or fewer steps, or allow it by "
                "params.max_core_hours.",
                details={"parameters": made.parameters, "core_hours": round(hours, 2)},
            )

    def _collected(
        self, kind: JobType, parts: Sequence[BaseModel], owners: Sequence[int], phase: str
    ) -> list[Drawn]:
        """The texts of parts, by owner and in the order of parts."""
        made: dict[int, tuple[TextsMade, list[dict[str, object]]]] = {}
        curves: dict[int, dict[str, list[list[float]]]] = {}
        for child in self.parts.ask(kind, parts, phase, "parts"):
            with child.open("texts.jsonl") as reader:
                rows = [json.loads(line) for line in reader.read().decode().splitlines() if line]
            made[child.place] = (TextsMade.model_validate(child.result), rows)
            part = parts[child.place]
            if isinstance(part, TextsPart) and isinstance(part.work, Optimise):
                with child.open("curves.json") as reader:
                    curves[child.place] = json.loads(reader.read())
        found = [Drawn() for _ in range(max(owners) + 1)]
        for place, owner in enumerate(owners):
            report, rows = made[place]
            drawn = found[owner]
            drawn.cut += report.cut
            self.forward_tokens += report.forward_tokens
            if place in curves:
                drawn.curves.append(curves[place])
            for row in rows:
                text = str(row["text"])
                if any(character.isalnum() for character in text):
                    drawn.texts.append(text)
                    drawn.groups.append(int(str(row["group"])))
                else:
                    drawn.empty += 1
        return found

    def score(self, drawn: Sequence[Drawn], labels: Sequence[int]) -> list[Scored]:
        """Read sets of texts, each with the word of one label. Texts that are too long are cut."""
        flat = [(k, text) for k, one in enumerate(drawn) for text in one.texts]
        parts = []
        for start in range(0, len(flat), _SCORED_A_PART):
            some = flat[start : start + _SCORED_A_PART]
            parts.append(
                ScoresPart(
                    model=self._spec.model,
                    template=self._spec.template,
                    words=self.words,
                    texts=[text for _, text in some],
                    labels=[labels[k] for k, _ in some],
                    max_tokens=self._spec.max_tokens,
                    device=self._spec.device,
                )
            )
        texts = [text for _, text in flat]
        read: dict[int, tuple[Factors, dict[str, FloatArray]]] = {}
        for child in self.parts.ask(SCORES_PART, parts, "scoring", "parts"):
            made = ScoresMade.model_validate(child.result)
            self.forward_tokens += made.forward_tokens
            for row, text in made.shortened.items():
                texts[child.place * _SCORED_A_PART + row] = text
            with child.open("scores.npz") as reader:
                read[child.place] = read_scores(reader)
        found, at = [], 0
        everything = [read[place] for place in range(len(parts))]
        factors = joined([one for one, _ in everything]) if everything else None
        columns = {
            name: np.concatenate([part[name] for _, part in everything])
            for name in ("probabilities", "log_loss", "tokens", "states")
            if everything
        }
        for one in drawn:
            part = slice(at, at + len(one.texts))
            at = part.stop
            if factors is None or not one.texts:
                raise JobError(
                    "numerical_failure",
                    f"All {one.empty} texts of a set to compare are without a letter.",
                    details={"empty": one.empty},
                )
            own = {name: values[part] for name, values in columns.items()}
            found.append(Scored(texts[part], one.groups, factors.rows(part), **own))
        return found

    def finetune(self, parts: Sequence[FinetunePart]) -> list[tuple[int, FloatArray, FloatArray]]:
        """Per fine-tuning: texts trained on, true labels, probabilities of held-out texts."""
        found = []
        for child in self.parts.all(FINETUNE_PART, parts, "fine-tuning", "trainings"):
            with child.open("outcome.npz") as reader:
                outcome = loadz(reader.read())
            trained_on = int(child.result["trained_on"])
            found.append((trained_on, outcome["truth"], outcome["probabilities"]))
        return found


def is_reference(spec: Spec) -> bool:
    """Whether texts are made as published."""
    return spec.method == "gradmm-reference"


def wants_bias(spec: Spec) -> bool:
    """Whether a bias of the head counts in distances."""
    params = spec.params
    return is_reference(spec) or (isinstance(params, GradmmParams) and params.bias == "equal")


def admm_params(spec: Spec) -> GradmmParams | ReferenceParams:
    """The parameters of an optimisation."""
    assert isinstance(spec.params, GradmmParams | ReferenceParams), "asked for gradmm only"
    return spec.params
