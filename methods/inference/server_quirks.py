"""What an OpenAI-compatible server does otherwise than OpenAI's: learned from what it refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

#: Statuses of a request that was understood and refused; others end the work or are tried again.
REFUSED = (400, 403, 404, 405, 413, 422, 501)

_MOST = re.compile(
    r"(?:at most|up to|max(?:imum)?(?: value)?(?: allowed)?(?: of| is)?:?|<=|less than or equal to)"
    r"\s*(\d+)"
)
_RANGE = re.compile(r"between 0 and (\d+)|\[0, ?(\d+)\]")
_NO_MODEL = re.compile(
    r"\bmodels?\b.*(?:not exist|not found|unknown)|(?:no|unknown) (?:such )?model\b"
)
_OF_N = re.compile(
    r"[`'\"\u2018\u201c]n[`'\"\u2019\u201d]|\bn (?:must|is not|should|greater)\b"
    r"|\bn\s*(?:>|!=|=)\s*\d|\bparameter:? n\b|\brange of n\b|\bbody\.n\b"
    r"|candidate_?count|multiple candidates|only one (?:completion )?(?:choice|candidate)"
)
#: Prompts are sent back in messages of filters; nothing is learned from those.
_FILTERED = re.compile(r"content[ _]?(?:filter|policy|management)|\bfiltered\b|\bsafety\b")
_NO_COMPLETIONS = re.compile(r"completion operation does not work|is a chat model|chat/completions")


@dataclass
class Quirks:
    """What was learned of a model's server; shared by all who ask it in a job.

    Attributes:
        renamed: it takes `max_completion_tokens` in place of `max_tokens`.
        dropped: fields of a request that it refuses, which are left out.
        most: the largest number of `top_logprobs`; None: no limit was met.
        single: it gives one answer a request, whatever `n` is.
        chat: it has no endpoint for completions: prompts are sent as the user's turn.
    """

    renamed: bool = False
    dropped: set[str] = field(default_factory=set)
    most: int | None = None
    single: bool = False
    chat: bool = False

    def fitted(self, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """A request as this server takes it."""
        body = {name: value for name, value in body.items() if name not in self.dropped}
        if self.chat and "prompt" in body:
            path = "/chat/completions"
            body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
            if (top := body.pop("logprobs", None)) is not None:
                body |= {"logprobs": True} | ({"top_logprobs": top} if top else {})
        if self.most is not None:
            name = "top_logprobs" if "messages" in body else "logprobs"
            if type(body.get(name)) is int:
                body[name] = min(body[name], self.most)
                if body[name] == 0 and name == "top_logprobs":
                    del body[name]
        if self.renamed and "max_tokens" in body:
            body["max_completion_tokens"] = body.pop("max_tokens")
        if self.single:
            body["n"] = 1
        return path, body

    def learn(self, status: int, said: str, sent: dict[str, Any]) -> bool:
        """Whether a refusal of what was sent says something that another request heeds.

        Args:
            said: the server's words.
        """
        before = repr(self)
        words = said.casefold()
        if _FILTERED.search(words) or (status == 403 and "logprob" not in words):
            return False
        if status in (404, 405, 501) or ("prompt" in sent and _NO_COMPLETIONS.search(words)):
            self.chat = self.chat or ("prompt" in sent and not _NO_MODEL.search(words))
        elif "max_completion_tokens" in words and "max_tokens" in sent and "length" not in words:
            self.renamed = True
        elif "logprob" in words and "logprobs" in sent:
            self._learn_logprobs(words, sent)
        elif "temperature" in words and "top_p" in words and {"temperature", "top_p"} <= set(sent):
            # One of both, or none of them; the temperature matters more.
            self.dropped.add("top_p")
        elif "temperature" in words and "temperature" in sent:
            self.dropped.add("temperature")
        elif "top_p" in words and "top_p" in sent:
            self.dropped.add("top_p")
        elif _OF_N.search(words) and sent.get("n", 1) > 1:
            self.single = True
        elif re.search(r"\bseed\b", words) and "seed" in sent:
            self.dropped.add("seed")
        elif re.search(r"\bstop\b", words) and "stop" in sent:
            self.dropped.add("stop")
        return repr(self) != before

    def _learn_logprobs(self, words: str, sent: dict[str, Any]) -> None:
        top = sent.get("top_logprobs", sent["logprobs"])
        limit = _MOST.search(words) or _RANGE.search(words)
        most = int(next(one for one in limit.groups() if one)) if limit else None
        if type(top) is int and top > 0:
            # A limit, or at first no alternatives at all.
            self.most = most if most is not None and most < top else 0
            if "top_logprobs" in words or most is not None:
                return
        self.dropped |= {"logprobs", "top_logprobs"}

    def said(self) -> list[str]:
        """What was learned, in words."""
        found = []
        if self.chat:
            found.append("The server has no completions endpoint: prompts were sent as chats.")
        if self.single:
            found.append("The server gives one answer a request: it was asked n times.")
        if self.renamed:
            found.append("The server takes max_completion_tokens in place of max_tokens.")
        if "temperature" in self.dropped:
            found.append(
                "The server refuses the temperature: its own was used, also for the judged answer."
            )
        if "logprobs" in self.dropped:
            found.append("The server gives no log-probabilities.")
        elif self.most is not None:
            found.append(f"The server gives at most {self.most} top_logprobs a token.")
        found += [
            f"The server refuses {name}: it was left out."
            for name in sorted(self.dropped - {"temperature", "logprobs", "top_logprobs"})
        ]
        return found
