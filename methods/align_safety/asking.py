"""Has models answer the prompts of all sets, and a judge read what they said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from methods.align_safety.child_jobs import RESPONSES_PART, ResponsesMade, ResponsesPart
from methods.align_safety.outcome.scored import Trained
from methods.align_safety.preparing import Prepared
from methods.align_safety.spec import Spec
from methods.children import Child
from methods.context import RunContext
from methods.jobtype import InputRef, ModelRef
from methods.parts import Parts
from methods.responses.counting.rates import Response
from methods.responses.reading.importing import import_responses
from methods.responses.schema import RubricJudge, RuleJudge, SetName
from methods.responses.scoring import as_response, phrases_of, put_judged
from methods.responses.spec import JOB as JUDGE_PART
from methods.responses.spec import JudgePart
from methods.seeds import derived_seed

#: Prompts of a part: about a minute of a small model on a CPU.
_PROMPTS_A_PART = 256


@dataclass
class _Answers:
    """What a part was asked, and said.

    Attributes:
        owner: place of the model. file: its responses as they were drawn.
    """

    owner: int
    set: SetName
    file: InputRef
    responses: list[Response]


class Asking:
    """Asks models.

    Args:
        root: the declared model that all adapters change; None: a job made the base whole.

    Attributes:
        server: a declared server that has `root` and loads adapters of it.
        prompt_tokens, completion_tokens: that models read and wrote so far.
    """

    def __init__(
        self, spec: Spec, prepared: Prepared, root: str | None, parts: Parts, ctx: RunContext
    ) -> None:
        self._spec, self._prepared, self._root = spec, prepared, root
        self._parts, self._ctx = parts, ctx
        self.server = None if root is None else ctx.models.server_of(root)
        self.prompt_tokens = self.completion_tokens = 0

    def ask(self, trained: Sequence[Trained], with_baseline: bool = False) -> list[Response]:
        """Put the responses of models into them, all models side by side.

        Returns:
            Those of the model before, if it is to be asked.
        """
        models = [ModelRef(one.model) for one in trained]
        answered = self._answered([self._baseline(), *models] if with_baseline else models)
        before = answered.pop(0) if with_baseline else []
        for one, own in zip(trained, answered, strict=True):
            one.responses = own
        return before

    def _baseline(self) -> ModelRef:
        """What is asked as the model before: its server, where it has one."""
        is_root = str(self._spec.model) == self._root
        return ModelRef(self.server if self.server and is_root else self._spec.model)

    def _answered(self, models: Sequence[ModelRef]) -> list[list[Response]]:
        """Responses of models to all prompts, judged."""
        spec, prepared = self._spec, self._prepared
        parts, owners = [], []
        for owner, model in enumerate(models):
            for name, rows in prepared.sets.items():
                for start in range(0, len(rows), _PROMPTS_A_PART):
                    owners.append(owner)
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
        found: dict[int, _Answers] = {}
        for child in self._parts.ask(RESPONSES_PART, parts, "answering"):
            made = ResponsesMade.model_validate(child.result)
            self.prompt_tokens += made.prompt_tokens
            self.completion_tokens += made.completion_tokens
            name = parts[child.place].set
            found[child.place] = _Answers(
                owners[child.place], name, InputRef(made.file), self._read(child, name)
            )
        ordered = [found[place] for place in range(len(parts))]
        self._judge([one for one in ordered if one.set == "harmful"])
        answered: list[list[Response]] = [[] for _ in models]
        for one in ordered:
            answered[one.owner] += one.responses
        return answered

    def _resource(self, model: ModelRef) -> Literal["cpu", "gpu", "llm"]:
        made = self._ctx.models.is_made(model)
        served = self.server is not None and (made or str(model) == self.server)
        # A full model has no adapter for the server to load.
        adapters = all(one.method == "lora" for one in self._spec.configurations)
        return "llm" if served and (adapters or not made) else self._spec.device

    def _read(self, child: Child, name: SetName) -> list[Response]:
        spec = self._spec
        with child.open("responses.jsonl") as reader:
            given = import_responses(reader.read().decode(), "responses", name).responses
        asked = spec.evaluate.reasoning
        extractor = asked.extractor if asked is not None else "exact"
        phrases, tags = phrases_of(spec.judge), spec.template.think_tags
        return [as_response(one, tags, extractor, phrases, self._prepared.begun) for one in given]

    def _judge(self, harmful: Sequence[_Answers]) -> None:
        judge = self._spec.judge
        if isinstance(judge, RuleJudge):
            return
        resource: Literal["cpu", "gpu", "llm"] = self._spec.device
        if isinstance(judge, RubricJudge) or self._ctx.models.find(judge.model).base_url:
            resource = "llm"
        parts = [
            JudgePart(
                judge=judge,
                responses=one.file,
                think=self._spec.template.think_tags,
                begun=self._prepared.begun,
                resource=resource,
            )
            for one in harmful
        ]
        for child in self._parts.ask(JUDGE_PART, parts, "judging"):
            put_judged(harmful[child.place].responses, child)
