"""Runs a rank-distilled-dataset job: reads, trains what is missing, scores, draws."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from methods.context import RunContext
from methods.errors import JobError
from methods.rank_distilled_dataset import blocks, figures
from methods.rank_distilled_dataset.children import setup, teachers
from methods.rank_distilled_dataset.children.bundles import Runner, Sizes, TrainingKey
from methods.rank_distilled_dataset.children.engine_choice import Chooser
from methods.rank_distilled_dataset.children.spec import (
    ARITHMETIC,
    TEACHER,
    TeacherResult,
    Teachers,
)
from methods.rank_distilled_dataset.data import candidates, splits
from methods.rank_distilled_dataset.data.candidates import Loaded
from methods.rank_distilled_dataset.data.datasets import RealData
from methods.rank_distilled_dataset.data.images import grid, write_png
from methods.rank_distilled_dataset.data.splits import Parts
from methods.rank_distilled_dataset.networks.names import parse_name, too_small
from methods.rank_distilled_dataset.protocol import experiment, leaderboard
from methods.rank_distilled_dataset.protocol.experiment import ModelComparison
from methods.rank_distilled_dataset.result import DatasetSummary, Leaderboard, Result, TrainingWork
from methods.rank_distilled_dataset.spec import JOB, Spec
from methods.rank_distilled_dataset.training.session import accuracy, one_thread
from methods.results import ArtifactRef, FigureBlock, Provenance

#: Images of a candidate shown in its grid, at most.
MAX_SHOWN = 200


def run(spec: Spec, ctx: RunContext) -> Result:
    """Rank the candidates of a spec; see `Spec` and `Result`."""
    with one_thread():
        return _run(spec, ctx)


def _run(spec: Spec, ctx: RunContext) -> Result:
    ctx.progress("reading", 0, 1 + len(spec.candidates), "data sets")
    data = splits.load(spec.dataset, experiment.real_part(spec).held_out, ctx)
    real = data.real
    loaded: list[Loaded] = []
    for place, candidate in enumerate(spec.candidates):
        ctx.progress("reading", 1 + place, 1 + len(spec.candidates), "data sets")
        loaded.append(candidates.load(candidate, real, spec.ipc, ctx))
    _check_sizes(spec, real)
    taught = experiment.teachers_of(spec)
    accuracies = {} if taught is None else _teachers(spec, taught, data, ctx)
    sizes = Sizes(
        real.shape,
        len(real.classes),
        len(data.train.labels),
        {name: len(labelled.labels) for name, labelled in data.evaluated.items()},
    )
    laid_out = [experiment.lay_out(spec, model, sizes, taught) for model in spec.models]
    wanted = [one for compared in laid_out for one in compared.wanted]
    runner = Runner(ctx, Chooser(spec.engine, sizes, ctx))
    runner.run_all(wanted, lambda: ctx.partial(_preview(spec, laid_out, runner)))
    comparisons = [experiment.score(spec, compared, runner.curves) for compared in laid_out]
    boards = [leaderboard.leaderboard(spec, real, compared, loaded) for compared in comparisons]
    texts = leaderboard.general_warnings(spec)
    texts += [*real.warnings, *(text for one in loaded for text in one.warnings)]
    drawn: list[FigureBlock] = []
    for compared, board in zip(comparisons, boards, strict=True):
        texts += leaderboard.warnings(spec, compared, board, len(real.classes))
        drawn += figures.draw(compared, board, spec.metrics[0])
    result = Result(
        leaderboards=boards,
        overall=_overall(boards),
        ranked_by=spec.metrics[0],
        protocol=spec.protocol,
        dataset=_summary(data),
        teachers=accuracies,
        work=_work(comparisons, runner),
        warnings=list(dict.fromkeys(texts)),
        artifacts=_artifacts(spec, real, loaded, comparisons, boards, ctx),
        provenance=Provenance.of(
            JOB,
            spec.seed,
            "torch",
            arithmetic=ARITHMETIC,
            device=", ".join(sorted(runner.devices)),
        ),
    )
    return blocks.present(result, drawn)


def _check_sizes(spec: Spec, real: RealData) -> None:
    """Before anything is trained."""
    for name in [*spec.models, *(spec.teacher.models if spec.teacher else [])]:
        problem = too_small(parse_name(name), *real.shape[1:])
        if problem:
            height, width = real.shape[1:]
            raise JobError("input_invalid", f"{name}: {problem}, these are {height}x{width}.")


def _teachers(spec: Spec, taught: Teachers, data: Parts, ctx: RunContext) -> dict[str, float]:
    """Test accuracies; what has to be trained is, before anything that needs it."""
    if taught.training:
        accuracies: dict[str, float] = {}
        ctx.progress("teachers", 0, len(taught.models), "teachers")
        for child in ctx.fan_out(TEACHER.name, taught.training):
            trained = TeacherResult.model_validate(child.result)
            accuracies[_name(taught.models, child.place)] = trained.accuracy
            ctx.progress("teachers", len(accuracies), len(taught.models), "teachers")
        return accuracies
    device = setup.device_of("cpu")
    networks = teachers.load(taught, data, device, ctx)
    return {
        _name(taught.models, place): accuracy(network, data.real.test, ctx.check)
        for place, network in enumerate(networks)
    }


def _name(models: list[str], place: int) -> str:
    """What a teacher is called: by its network, and where several are of one, by its place too."""
    name = models[place]
    return name if models.count(name) == 1 else f"{name} ({models[:place].count(name) + 1})"


def _preview(spec: Spec, laid_out: list[ModelComparison], runner: Runner) -> dict[str, object]:
    """The leaderboards of those candidates whose trainings are all done."""
    boards = []
    for compared in (experiment.score(spec, one, runner.curves) for one in laid_out):
        rows = [
            {
                "name": scored.candidate.name,
                "score": float(scored.score(spec.metrics[0]).mean()),
                "accuracy": float(scored.accuracy("own").mean()),
            }
            for scored in compared.scored
        ]
        rows.sort(key=lambda row: (-float(row["score"]), row["name"]))  # type: ignore[arg-type]
        boards.append({"model": compared.model, "rows": rows, "of": len(spec.candidates)})
    return {"ranked_by": spec.metrics[0], "leaderboards": boards}


def _overall(boards: list[Leaderboard]) -> list[str] | None:
    if len(boards) < 2:
        return None
    totals: dict[str, float] = {}
    for board in boards:
        for row in board.rows:
            totals[row.name] = totals.get(row.name, 0) + row.score
    return sorted(totals, key=lambda name: (-totals[name], name))


def _summary(data: Parts) -> DatasetSummary:
    real = data.real
    return DatasetSummary(
        name=real.name,
        digest=real.digest,
        classes=real.classes,
        shape=real.shape,
        train=len(data.train.labels),
        held_out=data.held_out,
        test=len(real.test.labels),
        mean=list(real.mean),
        std=list(real.std),
    )


def _work(comparisons: list[ModelComparison], runner: Runner) -> TrainingWork:
    """What was trained here, and what the sharing of trainings saved."""
    asked: Counter[TrainingKey] = Counter()
    who: dict[TrainingKey, str | None] = {}
    for compared in comparisons:
        asked.update(compared.full_wanted)
        for scored in compared.scored:
            asked.update(scored.wanted)
            for (_, whose), one in scored.sides.items():
                name = scored.candidate.name if whose == "candidate" else None
                for row in one.wanted:
                    who.update({wanted: name for wanted in row if wanted not in who})
    seconds = {wanted: runner.curves[wanted].seconds for wanted in asked}
    by_candidate: dict[str, float] = {}
    for wanted, name in who.items():
        if name is not None:
            by_candidate[name] = by_candidate.get(name, 0.0) + seconds[wanted]
    total = sum(seconds.values())
    saved = sum(
        seconds[wanted] * (times - 1 + (wanted in runner.restored))
        for wanted, times in asked.items()
    )
    return TrainingWork(
        trained=len(asked) - len(runner.restored),
        restored=len(runner.restored),
        shared=sum(times > 1 for times in asked.values()),
        seconds=total,
        seconds_saved=saved,
        baseline_seconds=total - sum(by_candidate.values()),
        candidate_seconds=by_candidate,
        engines=dict(Counter(runner.engines[one] for one in asked)),
    )


def _artifacts(
    spec: Spec,
    real: RealData,
    loaded: list[Loaded],
    comparisons: list[ModelComparison],
    boards: list[Leaderboard],
    ctx: RunContext,
) -> dict[str, ArtifactRef]:
    def save(name: str, data: bytes, kind: str) -> ArtifactRef:
        artifact: ArtifactRef = ctx.save_artifact(name, data, kind)
        return artifact

    table = (
        "".join(
            leaderboard.official_csv(board).split("\n", 1)[at > 0]
            for at, board in enumerate(boards)
        )
        if len(boards) > 1
        else leaderboard.official_csv(boards[0])
    )
    files = {"leaderboard": save("leaderboard.csv", table.encode(), "text/csv")}
    lines = "".join(json.dumps(line) + "\n" for line in _curve_lines(comparisons))
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


def _curve_lines(comparisons: list[ModelComparison]) -> Iterator[dict[str, object]]:
    """Every training with its curve, so that any other rule can be applied later."""
    for compared in comparisons:
        for place, curve in enumerate(compared.full_curves):
            about = {"model": compared.model, "set": "full data", "run": place}
            yield {**about, **asdict(curve)}
        for scored in compared.scored:
            for (variant, who), side in scored.sides.items():
                for rate, curves in zip(side.rates, side.curves, strict=True):
                    for place, curve in enumerate(curves):
                        name = scored.candidate.name
                        about = {
                            "model": compared.model,
                            "candidate": name,
                            "set": who,
                            "variant": variant,
                            "lr": rate,
                            "run": place,
                        }
                        yield {**about, **asdict(curve)}
