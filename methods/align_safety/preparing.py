"""All checks before anything is trained: rows, tokens, modules, memory, prompts in both sets."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from transformers import AutoTokenizer

from methods.align_safety.result import TrainingData
from methods.align_safety.spec import Spec
from methods.align_safety.training.bases import path_of
from methods.align_safety.training.encoding import Encoder
from methods.align_safety.training.modules import Matched, match, parameters, skeleton
from methods.align_safety.training.rows import TrainingSet, read_training
from methods.context import RunContext
from methods.errors import JobError
from methods.responses.reading.prompts import PromptRow, normalised, read_prompts
from methods.responses.schema import PromptSet, ReasoningSet, SetName

#: Bytes of a weight: float32 of it; of a trained one its gradient and two moments too.
_WEIGHT, _TRAINED, _FULL = 4, 12, 16
_SHARE_OF_MEMORY = 0.8


@dataclass
class Prepared:
    """What the checks found.

    Attributes:
        sets: prompts that are asked, those that are trained on left out.
        begun: prompts end within the thinking.
    """

    data: TrainingData
    sets: dict[SetName, list[PromptRow]]
    given: dict[SetName, PromptSet | ReasoningSet]
    begun: bool
    warnings: list[str] = field(default_factory=list)


def prepare(spec: Spec, ctx: RunContext) -> Prepared:
    """Check a request as far as it can be without training.

    Raises:
        JobError: `input_invalid`, `too_large`, `model_rejected_request`, `model_unavailable`.
    """
    ctx.progress("checking", 0, 1, "steps")
    source, base = path_of(spec.model, ctx)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base, revision=source.revision, trust_remote_code=False
        )
        model = skeleton(source, base)
    except (OSError, ValueError, ImportError) as error:
        text = f"The model {spec.model!r} cannot be loaded: {error}"
        raise JobError("model_unavailable", text[:2000], retryable=False) from error
    encoder = Encoder(tokenizer, spec.template, str(spec.model))
    matched = {
        one.name: match(model, one.at(one.learning_rate[0]))
        for one in spec.configurations
        if one.method == "lora"
    }
    warnings: list[str] = []
    cut, trained = 0, read_training(spec.train, spec.benign_mix, spec.seed, ctx)
    readings = {
        (spec.template.thought_of(one.reference), one.max_length) for one in spec.configurations
    }
    for think, length in sorted(readings, key=str):
        encoded = encoder.encode(trained.thinking(spec.template, think), length)
        cut = max(cut, encoded.cut)
        warnings += [one for one in encoded.warnings if one not in warnings]
    warnings += trained.warnings
    _check_memory(spec, parameters(model), matched)
    sets, given, twice = _sets(spec, trained, ctx)
    data = TrainingData(
        rows=len(trained.rows), mixed=trained.mixed, cut=cut, overlap_with_evaluation=twice
    )
    return Prepared(data, sets, given, encoder.begun, warnings)


def _sets(
    spec: Spec, trained: TrainingSet, ctx: RunContext
) -> tuple[
    dict[SetName, list[PromptRow]],
    dict[SetName, PromptSet | ReasoningSet],
    dict[SetName, list[str]],
]:
    asked = spec.evaluate
    sources: tuple[tuple[SetName, PromptSet | ReasoningSet | None], ...] = (
        ("harmful", asked.harmful),
        ("benign", asked.benign),
        ("reasoning", asked.reasoning),
    )
    seen = trained.prompts()
    sets: dict[SetName, list[PromptRow]] = {}
    given: dict[SetName, PromptSet | ReasoningSet] = {}
    twice: dict[SetName, list[str]] = {}
    for name, source in sources:
        if source is None:
            continue
        rows = read_prompts(source, name, ctx)
        both = [one.id for one in rows if normalised(one.text) in seen]
        if both:
            twice[name] = both
        sets[name] = [one for one in rows if normalised(one.text) not in seen]
        given[name] = source
        if not sets[name]:
            raise JobError(
                "input_invalid",
                f"evaluate.{name}: every prompt is trained on too, so nothing is left to evaluate "
                "with. Bring prompts that are not in train.",
            )
    return sets, given, twice


def _check_memory(spec: Spec, weights: int, matched: dict[str, Matched]) -> None:
    """Refuse what would not fit; activations are not counted."""
    needs = []
    for one in spec.configurations:
        if one.method == "full":
            needs.append(weights * _FULL)
        else:
            needs.append(weights * _WEIGHT + matched[one.name].trainable(one.r) * _TRAINED)
    needed, there = max(needs), _memory(spec.device)
    if needed > _SHARE_OF_MEMORY * there:
        raise JobError(
            "too_large",
            f"Training needs about {needed / 2**30:,.1f} GiB for {weights / 1e6:,.0f} million "
            f"weights, and {_SHARE_OF_MEMORY:.0%} of the memory here is "
            f"{_SHARE_OF_MEMORY * there / 2**30:,.1f} GiB. Take a smaller model, or adapters in "
            "place of all weights.",
            details={"bytes_needed": needed, "bytes_there": there},
        )


def _memory(device: str) -> int:
    if device == "gpu":
        import torch

        # Without a GPU the training says so; here the parent may run on another machine.
        if torch.cuda.is_available():
            return int(torch.cuda.mem_get_info()[1])
        return 1 << 60
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        there = min(there, int(text))
    return there
