"""Runs a rank-distilled-dataset job: reads, trains what is missing, scores, draws."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import torch

from methods.context import Artifact, RunContext
from methods.errors import JobError
from methods.figures import Figure
from methods.rank_distilled_dataset import candidates, datasets, figures, report, teachers
from methods.rank_distilled_dataset.candidates import Loaded
from methods.rank_distilled_dataset.compare import Compared, Parts, compare, full_tasks, split
from methods.rank_distilled_dataset.datasets import RealData
from methods.rank_distilled_dataset.names import parse_name, too_small
from methods.rank_distilled_dataset.pictures import grid, write_png
from methods.rank_distilled_dataset.result import (
    ArtifactRef,
    DatasetSummary,
    Leaderboard,
    Result,
    Work,
)
from methods.rank_distilled_dataset.runs import ENGINE, Runner, Teachers, device_class
from methods.rank_distilled_dataset.spec import JOB, Spec
from methods.rank_distilled_dataset.training import one_thread

#: Images of a candidate shown in its grid, at most.
MAX_SHOWN = 200


def run(spec: Spec, ctx: RunContext) -> Result:
    """Rank the candidates of a spec; see `Spec` and `Result`."""
    with one_thread():
        return _run(spec, ctx)


def _run(spec: Spec, ctx: RunContext) -> Result:
    ctx.progress("reading", 0, 1 + len(spec.candidates), "data sets")
    real = datasets.load(spec.dataset, ctx)
    loaded: list[Loaded] = []
    for place, candidate in enumerate(spec.candidates):
        ctx.progress("reading", 1 + place, 1 + len(spec.candidates), "data sets")
        loaded.append(candidates.load(candidate, real, spec.ipc, ctx))
    _check_sizes(spec, real)
    parts, runner = split(spec, real), Runner(ctx)
    taught, accuracies = _teachers(spec, parts, len(real.classes), runner, ctx)
    found = [
        compare(spec, model, parts, loaded, len(real.classes), taught, runner, ctx)
        for model in spec.models
    ]
    boards = [report.leaderboard(spec, real, compared, loaded) for compared in found]
    texts = report.general_warnings(spec)
    texts += [text for one in loaded for text in one.warnings]
    drawn: list[Figure] = []
    for compared, board in zip(found, boards, strict=True):
        texts += report.warnings(spec, compared, board, len(real.classes))
        drawn += figures.draw(compared, board, spec.metrics[0])
    return Result(
        leaderboards=boards,
        overall=_overall(boards),
        ranked_by=spec.metrics[0],
        protocol=spec.protocol,
        dataset=_summary(real, parts),
        teachers=accuracies,
        work=_work(found, runner),
        warnings=list(dict.fromkeys(texts)),
        artifacts=_artifacts(spec, real, loaded, found, boards, ctx),
        figures=drawn,
        versions={
            "method": f"{JOB.name}/{JOB.version}",
            "engine": str(ENGINE),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "device": device_class(),
        },
        seed=spec.seed,
    )


def _check_sizes(spec: Spec, real: RealData) -> None:
    """Before anything is trained."""
    for name in [*spec.models, *(spec.teacher.models if spec.teacher else [])]:
        problem = too_small(parse_name(name), *real.shape[1:])
        if problem:
            height, width = real.shape[1:]
            raise JobError("input_invalid", f"{name}: {problem}, these are {height}x{width}.")


def _teachers(
    spec: Spec, parts: Parts, classes: int, runner: Runner, ctx: RunContext
) -> tuple[Teachers, dict[str, float]]:
    if spec.teacher is None or all(c.labels.kind == "hard" for c in spec.candidates):
        return Teachers(), {}
    tasks = [full_tasks(spec, parts, model, classes)[0] for model in spec.teacher.models]
    return teachers.prepare(spec.teacher, tasks, runner, ctx)


def _overall(boards: list[Leaderboard]) -> list[str] | None:
    if len(boards) < 2:
        return None
    totals: dict[str, float] = {}
    for board in boards:
        for row in board.rows:
            totals[row.name] = totals.get(row.name, 0) + row.score
    return sorted(totals, key=lambda name: (-totals[name], name))


def _summary(real: RealData, parts: Parts) -> DatasetSummary:
    return DatasetSummary(
        name=real.name,
        digest=real.digest,
        classes=real.classes,
        shape=real.shape,
        train=len(parts.train.labels),
        held_out=parts.held_out,
        test=len(real.test.labels),
        mean=list(real.mean),
        std=list(real.std),
    )


def _work(found: list[Compared], runner: Runner) -> Work:
    """What was trained here, and what the sharing of trainings saved."""
    seconds = saved = baseline = 0.0
    by_candidate: dict[str, float] = {}
    counted: set[str] = set()

    def count(key: str, value: float, name: str | None) -> None:
        nonlocal seconds, saved, baseline
        if key in counted:
            saved += value
            return
        counted.add(key)
        seconds += value
        saved += value if key in runner.restored else 0.0
        if name is None:
            baseline += value
        else:
            by_candidate[name] = by_candidate.get(name, 0.0) + value

    for compared in found:
        for place, curve in enumerate(compared.full_curves):
            count(f"{compared.model}/full/{place}", curve.seconds, None)
        for scored in compared.scored:
            for (_, who), side in scored.sides.items():
                name = scored.candidate.name if who == "candidate" else None
                for row, curves in zip(side.tasks, side.curves, strict=True):
                    for task, curve in zip(row, curves, strict=True):
                        count(runner.key(task), curve.seconds, name)
    return Work(
        trained=len(runner.trained),
        restored=len(runner.restored),
        shared=sum(times > 1 for times in runner.asked.values()),
        seconds=seconds,
        seconds_saved=saved,
        baseline_seconds=baseline,
        candidate_seconds=by_candidate,
    )


def _artifacts(
    spec: Spec,
    real: RealData,
    loaded: list[Loaded],
    found: list[Compared],
    boards: list[Leaderboard],
    ctx: RunContext,
) -> dict[str, ArtifactRef]:
    def save(name: str, data: bytes, kind: str) -> ArtifactRef:
        artifact: Artifact = ctx.save_artifact(name, data, kind)
        return ArtifactRef(**asdict(artifact))

    table = "".join(
        report.official_csv(board).split("\n", 1)[at > 0] for at, board in enumerate(boards)
    ) if len(boards) > 1 else report.official_csv(boards[0])  # fmt: skip
    files = {"leaderboard": save("leaderboard.csv", table.encode(), "text/csv")}
    lines = "".join(json.dumps(line) + "\n" for line in _curve_lines(found))
    files["curves"] = save("curves.jsonl", lines.encode(), "application/x-ndjson")
    for place, (candidate, one) in enumerate(zip(spec.candidates, loaded, strict=True)):
        images = one.data.images[:MAX_SHOWN].numpy()
        columns = spec.ipc if 4 <= spec.ipc <= 20 else 10
        scale = max(1, 48 // images.shape[2])
        picture = write_png(grid(real.shown(images), columns, scale))
        short = re.sub(r"[^A-Za-z0-9_-]+", "-", candidate.name).strip("-")[:40]
        name = f"candidate-{place}-{short}.png"
        files[f"grid/{candidate.name}"] = save(name, picture, "image/png")
    return files


def _curve_lines(found: list[Compared]) -> Iterator[dict[str, object]]:
    """Every training with its curve, so that any other rule can be applied later."""
    for compared in found:
        for place, curve in enumerate(compared.full_curves):
            about = {"model": compared.model, "set": "full data", "run": place}
            yield {**about, **asdict(curve)}
        for scored in compared.scored:
            for (variant, who), side in scored.sides.items():
                for rate, curves in zip(side.rates, side.curves, strict=True):
                    for place, curve in enumerate(curves):
                        name = scored.candidate.name
                        about = {"model": compared.model, "candidate": name, "set": who,
                                 "variant": variant, "lr": rate, "run": place}  # fmt: skip
                        yield {**about, **asdict(curve)}
