"""Prompts and completions as tokens: the same in training as in answering, checked row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError

from methods.align_safety.training.rows import TrainingRow
from methods.align_safety.training.settings import PromptTemplate
from methods.errors import JobError
from methods.results import counted

_MOST_CUT = 0.2
_REPORTED = 100


@dataclass
class Encoded:
    """Rows as tokens; of each the first `prompts[i]` are no part of the loss.

    Attributes:
        cut: harmless rows that lost their end. warnings: what was aligned.
    """

    ids: list[list[int]] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    cut: int = 0
    warnings: list[str] = field(default_factory=list)

    def labels(self) -> list[list[int]]:
        """Tokens that count in the loss; -100 of those that do not."""
        return [
            [-100] * prompt + ids[prompt:]
            for ids, prompt in zip(self.ids, self.prompts, strict=True)
        ]


class Encoder:
    """Puts prompts to a model.

    Attributes:
        begun: prompts end within the thinking: the template opens it.
    """

    def __init__(self, tokenizer: Any, template: PromptTemplate, model: str) -> None:
        self._tokenizer, self._template = tokenizer, template
        if template.kind == "chat" and tokenizer.chat_template is None:
            raise JobError(
                "model_rejected_request",
                f"The model {model!r} has no chat template; set template.kind to raw and say what "
                "stands around a prompt.",
            )
        if tokenizer.eos_token_id is None:
            raise JobError("model_rejected_request", f"The model {model!r} has no end token.")
        tags = template.think_tags
        shown = self.text([{"role": "user", "content": "x"}])
        self.begun = tags is not None and shown.rstrip().endswith(tags.open)

    def text(self, turns: Sequence[dict[str, str]]) -> str:
        """The prompt of turns, up to where the model goes on."""
        if self._template.kind == "raw":
            return self._template.prompt.replace("{prompt}", turns[-1]["content"])
        return str(
            self._tokenizer.apply_chat_template(
                list(turns), tokenize=False, add_generation_prompt=True
            )
        )

    def ids(self, text: str) -> list[int]:
        """Tokens of a prompt, as it is put to the model when it answers."""
        # A chat template writes its special tokens itself.
        special = self._template.kind == "raw"
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def encode(self, rows: Sequence[TrainingRow], max_length: int) -> Encoded:
        """Encode rows; each ends with the end token, once.

        Raises:
            JobError: `input_invalid`: the tokens of prompt and completion are not those of both
                together; a refusal does not fit; more than a fifth of the rows is cut.
        """
        found, eos = Encoded(), int(self._tokenizer.eos_token_id)
        faults: list[dict[str, Any]] = []
        longest, long_refusals, aligned = 0, 0, 0
        for row in rows:
            if self._template.kind == "raw" and len(row.turns) > 1:
                problem = "has several turns, which a raw template does not take"
                faults.append(_fault(row, "messages", problem))
                continue
            try:
                prompt = self.text(row.turns)
            except TemplateError as error:
                problem = f"has turns that the chat template does not take: {error}"
                faults.append(_fault(row, "messages", problem[:300]))
                continue
            completion = self._aligned(row.completion)
            aligned += completion != row.completion
            head = self.ids(prompt)
            tail = list(self._tokenizer(completion, add_special_tokens=False)["input_ids"])
            if not tail:
                faults.append(_fault(row, "completion", "has no tokens"))
                continue
            if (seam := self._seam(prompt, completion, head, tail)) is not None:
                faults.append(_fault(row, "completion", seam))
                continue
            ids = [*head, *tail] if tail[-1] == eos else [*head, *tail, eos]
            longest = max(longest, len(ids))
            if len(ids) > max_length:
                found.cut += 1
                long_refusals += not row.benign
                ids = ids[:max_length]
            found.ids.append(ids)
            found.prompts.append(min(len(head), len(ids)))
        if faults:
            first = faults[0]
            raise JobError(
                "input_invalid",
                f"{counted(len(faults), 'row')} of {len(rows):,} cannot be trained on; the first "
                f"is row {first['row']} of {first['of']}: {first['field']} {first['problem']}.",
                details={"bad_rows": len(faults), "rows": faults[:_REPORTED]},
            )
        if long_refusals or found.cut > _MOST_CUT * len(rows):
            raise JobError(
                "input_invalid",
                f"{counted(found.cut, 'row')} of {len(rows):,} are longer than max_length "
                f"{max_length:,} and would lose their end"
                + (
                    f", {counted(long_refusals, 'refusal')} among them: the model would learn "
                    "refusals that never end"
                    if long_refusals
                    else ""
                )
                + f". The longest has {longest:,} tokens: set max_length to that.",
                details={"cut": found.cut, "max_length_needed": longest},
            )
        if aligned:
            found.warnings.append(
                "The template opens the thinking itself: of "
                f"{counted(aligned, 'completion')} an opening tag was taken off, or the thinking "
                "was closed before what had none."
            )
        return found

    def _aligned(self, completion: str) -> str:
        """A completion that goes on where the prompt ends: one that the prompt leaves within the
        thinking opens it no second time, and closes it."""
        tags = self._template.think_tags
        if tags is None or not self.begun:
            return completion
        if tags.close not in completion:
            return f"{tags.close}{completion}"
        if completion.lstrip().startswith(tags.open):
            return completion.lstrip()[len(tags.open) :].lstrip("\n")
        return completion

    def _seam(self, prompt: str, completion: str, head: list[int], tail: list[int]) -> str | None:
        """What is wrong where prompt and completion meet."""
        together = self.ids(prompt + completion)
        apart = [*head, *tail]
        if together == apart:
            return None
        pairs = zip(together, apart, strict=False)
        place = next(
            (k for k, (one, other) in enumerate(pairs) if one != other),
            min(len(together), len(apart)),
        )
        show = self._tokenizer.convert_ids_to_tokens
        pieces = [show(ids[place : place + 1]) for ids in (together, apart)]
        return (
            f"joins its prompt in one token: at token {place} both together give {pieces[0]}, "
            f"apart {pieces[1]}; begin completions so that a token starts there"
        )


def _fault(row: TrainingRow, name: str, problem: str) -> dict[str, Any]:
    of = "benign_mix" if row.benign else "train"
    return {"row": row.row, "of": of, "field": name, "problem": problem}
