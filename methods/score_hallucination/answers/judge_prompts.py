"""What judges are asked, and how their answers are read. An answer that cannot be read is None."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from methods.score_hallucination.schema.judges import JudgeScorer

#: So many of the likeliest tokens are looked at for a letter; vLLM gives no more by default.
LIKELIEST = 20

_ASKED = "Question:\n{question}\n\n"
_PROPOSED = "Proposed answer:\n{answer}\n\n"

IDEAS = "Here are some brainstormed ideas:\n{ideas}\n\n"
P_TRUE = _ASKED + "{brainstormed}" + _PROPOSED + "Is the proposed answer:\n(A) True\n(B) False\n"
VERBALIZED = (
    "How likely is it that the proposed answer to this question is correct?\n\n"
    + _ASKED
    + _PROPOSED
    + "Say it as one whole number from 0 (certainly wrong) to 100 (certainly correct), and say "
    "nothing else."
)
REFERENCES = "Right answers:\n{references}\n\n"
GRADING = (
    "Is the proposed answer to this question correct? It is when it says what a right answer says, "
    "in whatever words.\n\n"
    + _ASKED
    + "{references}"
    + _PROPOSED
    + "Say exactly one of these and nothing else: Correct / Incorrect / I am not sure."
)
PANEL = (
    "Is the proposed answer to this question correct?\n\n"
    + _ASKED
    + _PROPOSED
    + "Say exactly one of these and nothing else: Correct / Incorrect / I am not sure."
)


@dataclass(frozen=True)
class Message:
    """A question to a judge.

    Attributes:
        template: with `question` and `answer`, and for `p_true` `brainstormed`.
        chat, plain: how it ends in a chat, and for a model that completes text.
        read: what was said, as a number in [0, 1]. unread: why that is not possible.
        max_tokens, likeliest: see `Sampling`.
    """

    template: str
    chat: str
    plain: str
    read: Callable[[dict[str, Any]], float | None]
    unread: str
    max_tokens: int = 16
    likeliest: int = 0

    def words(self, chat: bool) -> str:
        """The whole template."""
        return self.template + (self.chat if chat else self.plain)

    def about(self, question: str, answer: str, ideas: Sequence[str], chat: bool) -> str:
        """The message for an answer; `ideas` are shown where the template has a place for them."""
        brainstormed = IDEAS.format(ideas="\n".join(ideas)) if ideas else ""
        return self.words(chat).format(question=question, answer=answer, brainstormed=brainstormed)


def read_p_true(record: dict[str, Any]) -> float | None:
    """P(A) / (P(A) + P(B)) of the first token; a letter that is not among the likeliest has 0.

    Args:
        record: `likeliest`, tokens with their log-probabilities.

    Source: P(True), Kadavath et al. 2022, arXiv:2207.05221.
    """
    found: dict[str, list[float]] = {"A": [], "B": []}
    for token, logprob in record.get("likeliest", ()):
        letter = token.strip(" \t\n().:*'\"\u0120\u2581")
        if letter in found:
            found[letter].append(logprob)
    if not found["A"] and not found["B"]:
        return None
    highest = max(found["A"] + found["B"])
    if highest == -math.inf:
        return None
    true, false = (sum(math.exp(value - highest) for value in found[k]) for k in "AB")
    return true / (true + false)


_NUMBER = re.compile(r"(?<![\w.,])[-+]?\d+(?:\.\d+|,\d{1,2})?(?!\w|[.,]\d)")
_OUT_OF = re.compile(
    r"(?:/|\bout of|\bof)\s*100(?![\d.,])|\b(?:from|of)\s+0\s*(?:to|-)\s*100\b", re.IGNORECASE
)


def read_number(record: dict[str, Any]) -> float | None:
    """The one number of the first line that says something, 0 to 100, as a share.

    "85", "85 %", "85/100" and "Confidence: 85." are read. Not so several numbers, numbers beyond
    0 to 100, and decimals up to 1: 0.85 may be meant for 85.
    """
    found: list[str] = _NUMBER.findall(_OUT_OF.sub("", _first_line(record)))
    if len(found) != 1:
        return None
    number = float(found[0].replace(",", "."))
    ambiguous = number <= 1 and not found[0].isdigit()
    return number / 100 if 0 <= number <= 100 and not ambiguous else None


_NOT = r"(?:\b(?:not|never|cannot|hardly)|n['\u2019]t)\s+(?:\w+\s+){0,5}?"
_UNSURE = re.compile(
    _NOT + r"(?:sure|certain)\b|\bun(?:sure|certain)\b"
    r"|\b(?:partially|partly|mostly|half|almost|nearly)[\s-]+(?:in)?correct\b"
)
#: Says that it is right, in the form of a double denial.
_NOT_WRONG = re.compile(_NOT + r"(?:incorrect|wrong|false)\b")
_WRONG = re.compile(r"\b(?:incorrect|wrong|false)\b|" + _NOT + r"correct\b")
#: Says what would be right, and so nothing of the answer.
_OTHER = re.compile(r"\b(?:the|a|no|any)\s+(?:\w+\s+)?correct\s+(?:answer|response|one)\b.*")
_NOT_ONLY = re.compile(r"\bnot\s+(?:only|just|merely)\s+")
_FIRST = re.compile(r"\W*(?:verdict\W+)?(correct|incorrect|wrong|false)\b(?!\s*[/|,]|\s+or\b)")
_FIRST_WORDS = {"correct": 1.0, "incorrect": 0.0, "wrong": 0.0, "false": 0.0}
_RIGHT = re.compile(r"\bcorrect\b")


def read_verdict(record: dict[str, Any]) -> float | None:
    """Correct 1, incorrect 0, not sure 1/2, by the first line that says something.

    Source: the template of the panel of judges in UQLM (true, false, uncertain).
    """
    line = _NOT_ONLY.sub("", _first_line(record).casefold())
    if _UNSURE.search(line):
        return 0.5
    first = _FIRST.match(line)
    if first is not None and first[1] in _FIRST_WORDS:
        return _FIRST_WORDS[first[1]]
    line = _OTHER.sub("", _NOT_WRONG.sub("correct", line))
    wrong, rest = bool(_WRONG.search(line)), _WRONG.sub("", line)
    if wrong == bool(_RIGHT.search(rest)):
        return None  # neither, or both
    return 0.0 if wrong else 1.0


def _first_line(record: dict[str, Any]) -> str:
    lines = [line.strip() for line in str(record["text"]).splitlines()]
    said = [line for line in lines if line.strip("`*#_- ") and not line.startswith("```")]
    # A heading, as in "Verdict:", says nothing by itself.
    bare = [line for line in said if not line.strip("*_# ").endswith(":")]
    return (bare or said or [""])[0]


_NO_NUMBER = "no judge gives a number from 0 to 100"
MESSAGES: dict[JudgeScorer, Message] = {
    "p_true": Message(
        P_TRUE,
        "Reply with the letter only: A or B.",
        # With the bracket open the letter is the first token.
        "The proposed answer is: (",
        read_p_true,
        "neither A nor B is among the likeliest tokens of any judge",
        max_tokens=1,
        likeliest=LIKELIEST,
    ),
    "verbalized_confidence": Message(
        VERBALIZED, "", "\n\nNumber:", read_number, "no judge gives a number"
    ),
    "llm_panel": Message(PANEL, "", "\n\nVerdict:", read_verdict, "no judge gives a verdict"),
}
