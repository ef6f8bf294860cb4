"""Has models answer the prompts of all sets, and a judge read what they said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from methods.align_safety.child_jobs import RESPONSES_PART, ResponsesMade, ResponsesPart
from methods.align_safety.outcome.scored import Trained
from methods.align_safety.preparing import Prepared
from methods.align_safety.spec import Spec
from methods.children import Child
from methods.context import RunContext
from methods.jobtype import InputRef, ModelRef
from methods.parts import Parts
from methods.responses.asking import judge_drawn
from methods.responses.counting.rates import Response
from methods.responses.reading.importing import import_responses
from methods.responses.schema import SetName
from methods.responses.scoring import as_response, phrases_of
from methods.seeds import derived_seed

#: Prompts of a part: about a minute of a small model on a CPU.
_PROMPTS_A_PART = 256


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
        answered: list[list[Response]] = [[] for _ in models]
        harmful: list[tuple[InputRef, list[Response]]] = []
        children = self._parts.all(RESPONSES_PART, parts, "answering")
        for child, part, owner in zip(children, parts, owners, strict=True):
            made = ResponsesMade.model_validate(child.result)
            self.prompt_tokens += made.prompt_tokens
            self.completion_tokens += made.completion_tokens
            responses = self._read(child, part.set)
            answered[owner] += responses
            if part.set == "harmful":
                harmful.append((InputRef(made.file), responses))
        judge_drawn(
            harmful,
            spec.judge,
            spec.template.think_tags,
            prepared.begun,
            spec.device,
            self._parts,
            self._ctx,
        )
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
