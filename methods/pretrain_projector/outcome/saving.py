"""The files of a pretrain-projector result."""

from __future__ import annotations

import json
from typing import Any

from methods.children import Child
from methods.context import RunContext
from methods.inference.made_models import MEDIA_TYPE
from methods.measure_modality_gap.safety.asking import Answered
from methods.parts import Parts
from methods.pretrain_projector.child_jobs import TENSORS, RunMade
from methods.pretrain_projector.outcome.comparing import Trained
from methods.pretrain_projector.result import ProjectorRun, Result
from methods.pretrain_projector.spec import Spec
from methods.results import ArtifactRef, Interval


def name_of(weight: float, seed: int) -> str:
    """A run in words."""
    return f"{'baseline' if weight == 0 else f'weight {weight:g}'}, seed {seed}"


def _plain(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def projector_file(name: str) -> str:
    """Name of the file with a run's tensors."""
    return f"projector-{_plain(name)}.safetensors"


def model_file(name: str) -> str:
    """Name of the artifact that other jobs take as a model."""
    return f"model-{_plain(name)}.tar"


def projector(name: str, child: Child, made: RunMade, parts: Parts) -> dict[str, ArtifactRef]:
    """The tensors of a run and its model, as artifacts of the job."""
    files = [
        (TENSORS, projector_file(name), "application/octet-stream"),
        (made.model.name, model_file(name), MEDIA_TYPE),
    ]
    return {own: parts.adopt(child, theirs, own, kind) for theirs, own, kind in files}


def history_of(child: Child) -> list[dict[str, Any]]:
    """What is known of every step of a run."""
    with child.open("training.jsonl") as reader:
        return [json.loads(line) for line in reader.read().decode().splitlines()]


def training(history: dict[str, list[dict[str, Any]]], ctx: RunContext) -> ArtifactRef:
    """Every step of all runs."""
    lines = [
        json.dumps({"run": name, **step}) + "\n" for name, own in history.items() for step in own
    ]
    return ctx.save_artifact("training.jsonl", "".join(lines).encode(), "application/x-ndjson")


def files(
    spec: Spec, result: Result, trained: list[Trained], said: Answered | None, ctx: RunContext
) -> dict[str, ArtifactRef]:
    """What is written beside the projectors."""
    found = {}
    if said is not None:
        found["responses.jsonl"] = ctx.save_artifact(
            "responses.jsonl", said.lines, "application/x-ndjson"
        )
    card = _card(spec, result, trained)
    found["model_card.md"] = ctx.save_artifact("model_card.md", card.encode(), "text/markdown")
    return found


def _card(spec: Spec, result: Result, trained: list[Trained]) -> str:
    first = trained[0].made
    out = [
        "# Model card",
        "",
        f"Projectors of {spec.model}; its vision tower and language model are unchanged.",
        f"Trained on {first.trained_on:,} captions, {first.steps:,} steps of "
        f"{first.rows_a_step:,}; {result.held_out:,} captions held out.",
        "",
        "| run | caption loss | behind other images | exact | MIR | distance at the input | "
        "length | refused: " + " | ".join(one.condition for one in result.runs[0].safety) + " |",
    ]
    conditions = len(result.runs[0].safety)
    out.append("| --- |" + " --- |" * (6 + max(1, conditions)))
    out += [_row(one) for one in result.runs]
    chosen = "none" if result.chosen is None else f"{result.chosen:g}"
    out += ["", f"Chosen weight: {chosen}. Seed: {spec.seed}."]
    if result.warnings:
        out += ["", "## Be careful", "", *(f"- {text}" for text in result.warnings)]
    return "\n".join(out) + "\n"


def _row(one: ProjectorRun) -> str:
    cells = [
        one.name,
        _figure(one.caption_loss.value),
        _figure(one.caption_loss_shuffled),
        _figure(None if one.exact_match is None else one.exact_match.value),
        _figure(one.mir),
        _figure(one.input.fid),
        _figure(one.norm_ratio),
        *([_share(own.refused) for own in one.safety] or ["not asked"]),
    ]
    return f"| {' | '.join(cells)} |"


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _share(found: Interval) -> str:
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
