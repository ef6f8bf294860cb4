"""What state the answers are in: cut, refused, empty, all alike; and what to warn of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from methods.score_hallucination.answers.adapters import UNKNOWN
from methods.score_hallucination.result import AnswerCounts
from methods.score_hallucination.schema.items import Answer, Item
from methods.score_hallucination.scoring.pipeline import ItemScores

#: So many items, and so large a share of them, make a pattern of what may be chance in one.
_FEWEST, _MOST = 5, 0.9
_FEW_PROMPTS = 5


def counts_of(answers: Iterable[Answer]) -> AnswerCounts | None:
    """What is out of the ordinary about answers; None where nothing is."""
    found = Counter[str]()
    for answer in answers:
        found["truncated"] += answer.finish_reason == "length"
        found["filtered"] += answer.finish_reason == "content_filter"
        found["tool_calls"] += answer.finish_reason in ("tool_calls", "function_call")
        found["refused"] += answer.refusal
        found["empty"] += not answer.text.strip()
        found["with_thoughts"] += answer.thoughts > 0
    return AnswerCounts(**found) if any(found.values()) else None


class AnswerStates:
    """The states of the answers of all items, item by item."""

    def __init__(self) -> None:
        self.total = AnswerCounts()
        self._several = self._alike = self._mostly_empty = self._unanswered = 0
        self._unknown, self._sizes, self._prompts = 0, Counter[int](), set[str]()
        self._labelled = 0

    def add(self, item: Item, scored: ItemScores, labelled: bool) -> AnswerCounts | None:
        """Note the next item; what is out of the ordinary about its answers."""
        answers = item.responses or []
        if not answers:
            self._unanswered += 1
            return None
        every = [*answers, *([item.answer] if item.answer is not None else [])]
        found = counts_of(every)
        if scored.windowed or scored.prompt_cut:
            found = found or AnswerCounts()
            found.in_windows, found.prompts_cut = scored.windowed, int(scored.prompt_cut)
        if found is not None:
            for name, number in found.model_dump().items():
                setattr(self.total, name, getattr(self.total, name) + number)
        self._sizes[len(answers)] += 1
        empty = sum(not answer.text.strip() for answer in answers)
        self._mostly_empty += 2 * empty > len(answers)
        if len(answers) > 1:
            self._several += 1
            self._alike += len({answer.text for answer in answers}) == 1
        self._unknown += any(
            value is None or value <= UNKNOWN
            for answer in every
            for value in answer.token_logprobs or []
        )
        if labelled:
            self._labelled += 1
            self._prompts.add(item.question or f"item {self._labelled}")
        return found

    def warnings(self) -> list[str]:
        """What a reader should know before the numbers."""
        found, total = [], self.total
        if self._alike >= _FEWEST and self._alike >= _MOST * self._several:
            found.append(
                f"no_diversity: in {self._alike} of {self._several} items all answers are "
                "identical to the letter; they may come from a cache, from temperature 0, or from "
                "a server that draws once"
            )
        if self._unanswered:
            found.append(f"unanswered: {self._unanswered} items have no answers; each says why")
        if self._mostly_empty:
            found.append(f"empty: in {self._mostly_empty} items most answers are empty")
        parts = {
            "truncated": "were cut off at the longest length; raise max_tokens",
            "refused": "are refusals, which count as one answer of their own",
            "filtered": "were taken away by the server's content filter",
            "tool_calls": "call tools in place of an answer",
            "with_thoughts": "began with thoughts, which were taken off",
            "in_windows": "are longer than the model of the similarity reads: it took windows",
        }
        found += [
            f"{name}: {number} answers {words}"
            for name, words in parts.items()
            if (number := getattr(total, name))
        ]
        if total.prompts_cut:
            found.append(
                f"prompts_cut: of {total.prompts_cut} prompts the model of the similarity read the "
                "end only"
            )
        if self._unknown:
            found.append(
                f"unknown_logprobs: in {self._unknown} items a log-probability is null or a "
                "placeholder; scorers that need it are undefined there"
            )
        if len(self._sizes) > 1:
            sizes = sorted(self._sizes)
            found.append(
                f"different_n: items have {sizes[0]} to {sizes[-1]} answers, and raw scores of "
                "many scorers depend on that; confidences do not"
            )
        if 0 < len(self._prompts) < _FEW_PROMPTS <= self._labelled:
            found.append(
                f"few_prompts: the {self._labelled} labelled items have {len(self._prompts)} "
                "different prompts; intervals are too narrow"
            )
        return found
