"""The files of an align-safety result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from methods.align_safety.outcome.scored import Trained
from methods.align_safety.overlap.weight_files import CONFIG, WEIGHTS
from methods.align_safety.result import CheckpointScored, Result
from methods.align_safety.spec import Spec
from methods.context import RunContext
from methods.inference.made_models import unpack
from methods.responses.counting.rates import Response
from methods.responses.scoring import as_line
from methods.results import ArtifactRef, Interval
from methods.row_files import csv_bytes

_BASELINE = "before"


@dataclass(frozen=True)
class Files:
    """What is written beside the result.

    Attributes:
        root: the declared model that adapters change. history: lines of training.jsonl.
        overlap: overlap.csv.
    """

    root: str | None
    history: list[str]
    overlap: bytes


def save(
    spec: Spec,
    result: Result,
    before: list[Response],
    trained: list[Trained],
    files: Files,
    ctx: RunContext,
) -> dict[str, ArtifactRef]:
    """Save all files; returns them by name."""
    found: dict[str, ArtifactRef] = {}

    def put(name: str, data: bytes | Path, media_type: str) -> None:
        found[name] = ctx.save_artifact(name, data, media_type)

    if result.chosen is not None:
        found |= _model(spec, trained[result.chosen], "adapter", files.root, ctx)
    if spec.evaluate.responses == "given":
        for place, one in enumerate(trained):
            found |= _model(spec, one, f"checkpoint-{place}", files.root, ctx)
    lines = [as_line(_BASELINE, one, "checkpoint") for one in before]
    lines += [as_line(own.name, one, "checkpoint") for own in trained for one in own.responses]
    put("responses.jsonl", _lines(lines), "application/x-ndjson")
    put("checkpoints.csv", _table(result.checkpoints), "text/csv")
    if files.overlap:
        put("overlap.csv", files.overlap, "text/csv")
    put("training.jsonl", _lines(files.history), "application/x-ndjson")
    put("model_card.md", _card(spec, result).encode(), "text/markdown")
    return found


def _model(
    spec: Spec, one: Trained, name: str, root: str | None, ctx: RunContext
) -> dict[str, ArtifactRef]:
    """A model as an artifact of this job; of an adapter its two files too."""
    if not one.is_adapter and not spec.keep_full:
        return {}
    folder = ctx.workdir / name
    with one.child.open(one.artifact) as reader:
        manifest = unpack(reader, folder, one.name)
    if manifest.kind == "full":
        saved = ctx.save_model("model" if name == "adapter" else name, folder)
        return {saved.name: saved}
    assert root is not None, "an adapter is of a declared model"
    saved = ctx.save_model(name, folder, root)
    found = {saved.name: saved}
    if name == "adapter":
        types = {WEIGHTS: "application/octet-stream", CONFIG: "application/json"}
        for file, media_type in types.items():
            found[file] = ctx.save_artifact(file, folder / file, media_type)
    return found


def _lines(lines: list[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode()


def _table(scored: list[CheckpointScored]) -> bytes:
    """A row a checkpoint; intervals as three columns."""
    skipped = {"mcnemar", "gates", "model"}
    fields = [name for name in CheckpointScored.model_fields if name not in skipped]
    shares = {
        name for name in fields if any(isinstance(getattr(one, name), Interval) for one in scored)
    }
    head: list[str] = []
    for name in fields:
        head += [name, f"{name}_low", f"{name}_high"] if name in shares else [name]
    rows: list[list[object]] = [[*head, "accuracy_p", "harmful_p"]]
    for one in scored:
        row: list[object] = []
        for name in fields:
            value = getattr(one, name)
            if name in shares:
                row += [value.value, value.low, value.high] if value else [None] * 3
            else:
                row.append(value)
        tests = (one.mcnemar.accuracy, one.mcnemar.harmful)
        rows.append([*row, *(None if test is None else test.exact_p for test in tests)])
    return csv_bytes(rows)


def _card(spec: Spec, result: Result) -> str:
    """A model card of the chosen checkpoint, or of the job where none was chosen."""
    lines = ["# Model card", "", f"Base: {spec.model}. Method: refusal fine-tuning."]
    if result.chosen is None:
        lines += ["", f"No checkpoint was chosen; verdict: {result.verdict}."]
    else:
        one = result.checkpoints[result.chosen]
        lines += ["", f"Checkpoint: {one.name}. Verdict: {one.verdict}.", ""]
        lines += ["| share | before | after | 95 % |", "| --- | --- | --- | --- |"]
        for name, label in (
            ("harmful_rate", "unsafe responses to harmful prompts"),
            ("over_refusal", "refused harmless prompts"),
            ("accuracy", "problems answered right"),
        ):
            first, after = getattr(result.baseline, name), getattr(one, name)
            ends = "" if after is None else f"{after.low:.3f} to {after.high:.3f}"
            lines.append(f"| {label} | {_percent(first)} | {_percent(after)} | {ends} |")
    data = result.data
    lines += [
        "",
        f"Training rows: {data.rows:,}, {data.mixed:,} of them harmless. Judge: "
        f"{result.judge.kind} ({result.judge.name}), rule list {result.judge.version}. "
        f"Seed: {spec.seed}.",
    ]
    if result.warnings:
        lines += ["", "## Read before use", ""]
        lines += [f"- {text}" for text in result.warnings]
    return "\n".join(lines) + "\n"


def _percent(one: Interval | None) -> str:
    return "-" if one is None or one.value is None else f"{one.value:.1%}"
