"""Takes judged answers apart: into sentences, or by a model into claims."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from methods.context import RunContext
from methods.inference.completion import Prompt, Sampling
from methods.inference.llm import language_model
from methods.score_hallucination.answers.answer_store import Drawn, as_said, draw, spent
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.similarity.sentences import Span, sentence_spans
from methods.score_hallucination.spec import Spec

_ASKED = (
    "Take the answer below apart into its claims: short sentences that can each be true or false "
    "and that make sense alone, with names in place of pronouns. Say only what the answer says.\n\n"
    "Question:\n{question}\n\nAnswer:\n{answer}\n\n"
    "Write one claim a line and nothing else."
)
_MARK = re.compile(r"^\s*(?:[-*\u2022]|\(?\d+[.)]|claim\s*\d*\s*:)\s*", re.IGNORECASE)
_MOST = 200


class Units:
    """The parts of the judged answers, by the number of the item."""

    def __init__(self, spec: Spec, kept: Drawn | None) -> None:
        self._granularity, self._kept = spec.granularity, kept

    def of(self, item: Item, number: int) -> list[Span]:
        """The parts of an item's answer; of a claim in other words the place is -1."""
        if self._granularity == "answer" or item.answer is None or item.answer.refusal:
            return []
        text = item.answer.text
        if self._kept is None:
            return sentence_spans(text)[:_MOST]
        records = self._kept.records(number) if number in self._kept else []
        found = []
        for line in str(records[0]["text"]).splitlines() if records else ():
            claim = _MARK.sub("", line).strip()
            if claim:
                at = text.find(claim)
                found.append(Span(claim, at, at + len(claim) if at >= 0 else -1))
        return found[:_MOST]


def take_apart(items: Iterable[Item], count: int, spec: Spec, ctx: RunContext) -> Units:
    """The parts that the spec wants; a model is asked for claims, once a job.

    Raises:
        JobError: `model_unknown`, `model_unavailable`, `model_rejected_request`.
    """
    if spec.claims is None:
        return Units(spec, None)
    claims, kept = spec.claims, Drawn("claims", ctx, "claims_usage", as_said)

    def prompts() -> Iterator[tuple[int, Prompt]]:
        for number, item in enumerate(items):
            text = "" if item.answer is None or item.answer.refusal else item.answer.text
            if number not in kept and text.strip():
                yield number, _ASKED.format(question=item.question, answer=text)

    sampling = Sampling(
        n=1, temperature=0.0, max_tokens=claims.max_tokens, logprobs=False, chat=claims.chat
    )
    model = language_model(ctx.models, claims.model)
    draw(model, prompts(), sampling, kept, spent(ctx, "claims_usage"), ("claiming", count), ctx)
    return Units(spec, kept)
