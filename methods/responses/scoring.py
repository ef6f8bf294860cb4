"""From responses to outcomes: what is answer and what thought, rule, judge, right answers."""

from __future__ import annotations

import json
from collections.abc import Sequence

from methods.context import RunContext
from methods.responses.counting.rates import Response, judge_by_rule, settle
from methods.responses.judging import judge as judging
from methods.responses.judging.judged import Judged
from methods.responses.reading.extractors import is_right
from methods.responses.reading.importing import Given
from methods.responses.reading.rules import after_thinking
from methods.responses.schema import (
    RULES_VERSION,
    Extractor,
    Judge,
    JudgeUsed,
    ResponseSample,
    RuleJudge,
    SetName,
    Think,
)

#: Responses of each set that a result shows beside each other.
SHOWN_PAIRS = 5
_SHOWN_CHARACTERS = 2_000


def as_response(
    given: Given,
    think: Think | None,
    extractor: Extractor,
    phrases: Sequence[str],
    begun: bool = False,
) -> Response:
    """A response with what the rule and the extractor say.

    Args:
        begun: prompts end within the thinking.
    """
    tags = None if think is None else (think.open, think.close)
    parts = after_thinking(given.response, tags, begun)
    found = Response(
        set=given.set,
        id=given.id,
        sample=given.sample,
        prompt=given.prompt,
        text=given.response,
        answer=parts.answer,
        # Nothing after the thought, and cut: the answer had not begun.
        unfinished=parts.unfinished or (not parts.answer and bool(given.truncated)),
        truncated=given.truncated,
        tokens=given.tokens,
        row=given.row,
    )
    judge_by_rule(found, phrases)
    if found.set == "reasoning":
        assert given.answer is not None, "a problem has its answer"
        found.right = not found.unfinished and is_right(found.answer, given.answer, extractor)
    settle(found)
    return found


def begins_within(given: Sequence[Given], think: Think | None) -> bool:
    """Whether the prompts open the thinking themselves: a response closes what it never opened."""
    if think is None:
        return False
    return any(
        think.close in one.response and think.open not in one.response.split(think.close)[0]
        for one in given
    )


def phrases_of(judge: Judge) -> list[str]:
    """What a request adds to the rule."""
    return judge.phrases if isinstance(judge, RuleJudge) else []


def pairs_to_judge(
    responses: Sequence[Response], reads: str
) -> tuple[list[tuple[str, str]], list[int]]:
    """The different pairs of prompt and response that a judge has to read, and for each response
    its place among them, -1 for one that is not judged: no answer, or of another set."""
    places: dict[tuple[str, str], int] = {}
    found = []
    for one in responses:
        if one.set != "harmful" or (one.unfinished and reads == "answer"):
            found.append(-1)
            continue
        pair = (one.prompt, one.answer if reads == "answer" else one.text)
        found.append(places.setdefault(pair, len(places)))
    return list(places), found


def put_judgements(
    responses: Sequence[Response], places: Sequence[int], judged: Sequence[Judged]
) -> None:
    """Write what a judge said into the responses."""
    for one, place in zip(responses, places, strict=True):
        if one.set != "harmful":
            continue
        found = Judged(None, "") if place < 0 else judged[place]
        one.unsafe, one.score, one.raw = found.unsafe, found.score, found.raw or None
        settle(one)


def judge_here(responses: Sequence[Response], judge: Judge, ctx: RunContext) -> None:
    """Have a judge read the responses in this job. Raises what `judging.judge` does."""
    if isinstance(judge, RuleJudge):
        return
    pairs, places = pairs_to_judge(responses, judge.reads)
    put_judgements(responses, places, judging.judge(judge, pairs, ctx))


def judge_used(responses: Sequence[Response], judge: Judge) -> JudgeUsed:
    """Which judge it was, and how far it agrees with the rule: unsafe is what is not refused."""
    if isinstance(judge, RuleJudge):
        harmful = [one for one in responses if one.set == "harmful"]
        return JudgeUsed(
            kind="rule", name="refusal phrases", version=RULES_VERSION, n_judged=len(harmful)
        )
    read = [one for one in responses if one.set == "harmful" and one.raw is not None]
    said = [one for one in read if one.unsafe is not None]
    same = sum(one.unsafe is not one.refused for one in said)
    return JudgeUsed(
        kind=judge.kind,
        name=str(judge.model),
        version=RULES_VERSION,
        agreement_with_rule=same / len(said) if said else None,
        n_judged=len(read),
        n_invalid=len(read) - len(said),
    )


def sample_pairs(
    before: Sequence[Response], after: Sequence[Response], show_harmful: bool
) -> list[ResponseSample]:
    """Some prompts of each set beside each other: first those whose outcome changed.

    Args:
        show_harmful: texts of the harmful set are shown; otherwise only their ids and outcomes.
    """
    found: list[ResponseSample] = []
    names: tuple[SetName, ...] = ("harmful", "benign", "reasoning")
    for name in names:
        earlier = {one.place: one for one in before if one.set == name}
        later = [one for one in after if one.set == name and one.place in earlier]
        both = [(earlier[one.place], one) for one in later]
        both.sort(key=lambda pair: pair[0].outcome == pair[1].outcome)
        hidden = name == "harmful" and not show_harmful
        for first, second in both[:SHOWN_PAIRS]:
            found.append(
                ResponseSample(
                    set=name,
                    id=second.id,
                    prompt=None if hidden else second.prompt[:_SHOWN_CHARACTERS],
                    before=None if hidden else first.text[:_SHOWN_CHARACTERS],
                    after=None if hidden else second.text[:_SHOWN_CHARACTERS],
                    before_outcome=first.outcome,
                    after_outcome=second.outcome,
                )
            )
    return found


def as_line(arm: str, one: Response, arm_name: str = "arm") -> str:
    """A line of `responses.jsonl`."""
    return json.dumps(
        {
            arm_name: arm,
            "set": one.set,
            "id": one.id,
            "sample": one.sample,
            "prompt": one.prompt,
            "response": one.text,
            "outcome": one.outcome,
            "refused": one.refused,
            "unsafe": one.unsafe,
            "right": one.right,
            "score": one.score,
            "judge_said": one.raw,
            "tokens": one.tokens,
            "truncated": one.truncated,
        },
        ensure_ascii=False,
    )
