"""Runs a score-hallucination job: reads, scores in chunks, evaluates, draws."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.results import ArtifactRef, Provenance
from methods.score_hallucination import blocks, figures
from methods.score_hallucination.answers import sampling
from methods.score_hallucination.answers.adapters import answers_of, nli_cost, options_of
from methods.score_hallucination.answers.claims import take_apart
from methods.score_hallucination.answers.graders import contains
from methods.score_hallucination.answers.item_reader import Items, chunks
from methods.score_hallucination.answers.judges import collect_judgements
from methods.score_hallucination.answers.judges import provenance_fields as judged
from methods.score_hallucination.answers.state import AnswerStates
from methods.score_hallucination.calibration.apply import Calibration
from methods.score_hallucination.calibration.calibrator import MAX_BYTES, read_calibrator
from methods.score_hallucination.evaluation import ranking
from methods.score_hallucination.evaluation.slices import Slice, Slices
from methods.score_hallucination.explain import explanations
from methods.score_hallucination.result import (
    Cluster,
    Evaluation,
    Explanation,
    ItemResult,
    Result,
    Score,
    ScorerSummary,
    ScoringSummary,
    SliceSummary,
)
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.schema.long_form import AnswerUnit
from methods.score_hallucination.schema.options import provenance_fields
from methods.score_hallucination.schema.verification import Verification
from methods.score_hallucination.scorers.consistency import unit_support
from methods.score_hallucination.scoring.pipeline import SCORERS, ItemScores, score
from methods.score_hallucination.similarity.nli import CONTRADICTION
from methods.score_hallucination.similarity.sentences import Span
from methods.score_hallucination.spec import JOB, Spec
from methods.score_hallucination.verification import FirstStage, verify

_INLINE_BYTES = 256 * 1024
_SHOWN = 160

Label = Literal[0, 1] | None


def run(spec: Spec, ctx: RunContext) -> Result:
    """Score every item; see `Spec` and `Result`."""
    items = Items(spec, ctx)
    calibration = _calibration(spec, ctx)
    calibrator = None if calibration is None else calibration.calibrator
    first = None if spec.verifier is None else FirstStage(spec.verifier, calibrator)
    complete: Iterable[Item] = items
    sampled = None
    if items.unanswered and spec.sampler is not None:
        complete, sampled = sampling.complete(items, spec.sampler, spec, ctx)
    opinions, judging = collect_judgements(complete, spec, ctx)
    units = take_apart(complete, items.count, spec, ctx)
    options = options_of(spec, ctx)
    if first is not None and first.scorer is not None and first.scorer not in options.scorers:
        options = replace(options, scorers=(*options.scorers, first.scorer))
    spent, tally = nli_cost(options), _Tally(spec.scorers, spec.slices)
    path, shown = ctx.workdir / "items.jsonl", ctx.workdir / "samples.jsonl"
    done = 0
    with path.open("wb") as writer, shown.open("wb") as sample_writer:
        samples = blocks.SampleWriter(spec, sample_writer)
        for chunk in chunks(complete):
            parts = [units.of(item, done + k) for k, item in enumerate(chunk)]
            answers = [
                answers_of(item, opinions.scores(item, done + k), [part.text for part in parts[k]])
                for k, item in enumerate(chunk)
            ]
            scores = score(answers, options, ctx.check)
            explained = _explained(scores, spec)
            for item, scored, explanation, own in zip(chunk, scores, explained, parts, strict=True):
                row = _item_result(item, scored, spec, done, tally.add(item, scored))
                row.answers = tally.states.add(item, scored, row.label is not None)
                row.explanation = explanation
                row.units = unit_scores(own, scored) if spec.granularity != "answer" else None
                row.opinions = opinions.of(done) or None
                if calibration is not None:
                    row.calibrated = calibration.add(scored)
                if first is not None:
                    first.add(scored)
                writer.write(row.model_dump_json().encode() + b"\n")
                samples.add(item, row)
                done += 1
            ctx.progress("scoring", done, items.count)
    verdicts, verified = None, None
    if first is not None:
        verdicts, verified = verify(complete, first, options, np.array(tally.quality), ctx)
        path = _with_verdicts(path, verdicts)
    ctx.progress("evaluating", 1, 1, "steps")
    summary = tally.summary(ctx, calibration)
    summary.n_bad_rows = items.bad
    summary.calibration = None if calibration is None else calibration.summary()
    summary.verification = verified
    inline = path.stat().st_size <= _INLINE_BYTES
    result = Result(
        items=_parse(path) if inline else None,
        items_artifact=None if inline else _save(path, ctx),
        summary=summary,
        sampling=sampled,
        judging=judging,
        bad_rows=items.bad_artifact,
        warnings=[
            *blocks.of_sampling(summary, sampled),
            *tally.states.warnings(),
            *tally.slices.warnings(),
            *blocks.warnings(summary),
        ],
        provenance=_provenance(
            spec, {f"nli_{what}": n - spent[what] for what, n in nli_cost(options).items()}
        ),
    )
    drawn = figures.draw(
        tally.columns(),
        np.array(tally.quality),
        tally.sizes,
        {name for name in spec.scorers if SCORERS[name].direction == "confidence"},
    )
    best = blocks.best_scorer(summary.scorers)
    return blocks.present(result, samples.block(shown, ctx, best, verdicts), tally.sizes, drawn)


def _calibration(spec: Spec, ctx: RunContext) -> Calibration | None:
    if spec.calibrator is None:
        return None
    with ctx.open_input(spec.calibrator) as reader:
        calibrator = read_calibrator(reader.read(MAX_BYTES + 1))
    if (fault := calibrator.check(spec)) is not None:
        raise JobError("input_invalid", f"The calibrator does not hold here: {fault}.")
    return Calibration(calibrator, spec.decision)


def _explained(scores: list[ItemScores], spec: Spec) -> list[Explanation | None]:
    if spec.explain == "none":
        return [None] * len(scores)
    return explanations(scores, spec.tau, spec.include_self, spec.explain == "matrix")


def _with_verdicts(path: Path, verdicts: list[Verification]) -> Path:
    target = path.with_name("verified.jsonl")
    with path.open("rb") as reader, target.open("wb") as writer:
        for line, verdict in zip(reader, verdicts, strict=True):
            result = ItemResult.model_validate_json(line)
            result.verification = verdict
            writer.write(result.model_dump_json().encode() + b"\n")
    return target


def _item_result(
    item: Item, scored: ItemScores, spec: Spec, index: int, label: Label
) -> ItemResult:
    scores = {
        name: Score(
            value=scored.values.get(name),
            direction=SCORERS[name].direction,
            confidence=scored.confidences.get(name),
            valid=name in scored.values,
            reason=scored.reasons.get(name),
        )
        for name in spec.scorers
    }
    return ItemResult(
        id=item.id if item.id is not None else str(index),
        prompt=item.question[-_SHOWN:] or None,
        answer=None if item.answer is None else item.answer.text[:_SHOWN],
        label=label,
        scores=scores,
        clusters=_clusters(scored),
        n=scored.n,
        n_unique=scored.n_unique,
        covered=scored.covered,
        metadata=item.metadata,
    )


def unit_scores(parts: list[Span], scored: ItemScores) -> list[AnswerUnit]:
    """The parts of the judged answer with what the samples say of them."""
    supports: list[float] | list[None] = [None] * len(parts)
    contradicted = [0] * len(parts)
    if scored.units is not None:
        supports = unit_support(scored.units).tolist()
        contradicted = (scored.units.argmax(axis=-1) == CONTRADICTION).sum(axis=-1).tolist()
    return [
        AnswerUnit(
            text=part.text,
            start=part.start if part.start >= 0 else None,
            end=part.end if part.start >= 0 else None,
            support=supports[k],
            contradicted=contradicted[k],
        )
        for k, part in enumerate(parts)
    ]


def _clusters(scored: ItemScores) -> list[Cluster]:
    members: dict[int, list[int]] = {}
    for position, cluster in enumerate(scored.cluster_ids.tolist()):
        members.setdefault(cluster, []).append(position)
    medoids = scored.representatives.tolist()
    return [
        Cluster(members=group, size=len(group), representative=medoids[cluster])
        for cluster, group in sorted(members.items())
    ]


def _label(item: Item) -> tuple[Label, str | None]:
    """The label of an item and where it comes from: given, or graded by its references."""
    if item.label is not None:
        return item.label, "given"
    references = [r for r in item.references or [] if r.strip()]
    if item.answer is not None and references:
        return 0 if contains(item.answer.text, references) else 1, "contains_reference"
    return None, None


class _Tally:
    """The columns of all items, for the summary."""

    def __init__(self, names: list[Any], slices: list[str]) -> None:
        self._values: dict[str, list[float]] = {name: [] for name in names}
        self.quality: list[float] = []
        self.sizes: dict[int, int] = {}
        self._labels: dict[str, int] = {}
        self._answers = 0
        self.states, self.slices = AnswerStates(), Slices(slices)

    def add(self, item: Item, scored: ItemScores) -> Label:
        for name, column in self._values.items():
            column.append(scored.values.get(name, np.nan))
        label, source = _label(item)
        if source is not None:
            self._labels[source] = self._labels.get(source, 0) + 1
        self.quality.append(np.nan if label is None else 1.0 - label)
        if scored.n:
            clusters = int(scored.cluster_ids.max()) + 1
            self.sizes[clusters] = self.sizes.get(clusters, 0) + 1
        self.slices.add(item)
        self._answers += scored.n
        return label

    def columns(self) -> dict[str, Any]:
        return {name: np.array(column) for name, column in self._values.items()}

    def summary(self, ctx: RunContext, calibration: Calibration | None) -> ScoringSummary:
        quality = np.array(self.quality)
        # One generator state for every scorer: they are compared on the same resamples.
        seed = int(ctx.rng.integers(2**63))
        return ScoringSummary(
            n_items=len(quality),
            n_answers=self._answers,
            labels=self._labels,
            answers=self.states.total,
            scorers=self._scorers(quality, seed, ctx),
            slices=[self._sliced(part, quality, calibration, seed, ctx) for part in self.slices],
        )

    def _scorers(
        self, quality: Any, seed: int, ctx: RunContext, rows: Any = slice(None)
    ) -> dict[str, ScorerSummary]:
        return {
            name: _summarise(name, column[rows], quality[rows], np.random.default_rng(seed), ctx)
            for name, column in self.columns().items()
        }

    def _sliced(
        self, part: Slice, quality: Any, calibration: Calibration | None, seed: int, ctx: RunContext
    ) -> SliceSummary:
        labelled = quality[part.rows][np.isfinite(quality[part.rows])]
        return SliceSummary(
            field=part.field,
            value=part.value,
            n_items=int(part.rows.sum()),
            n_hallucinated=int((labelled == 0).sum()) if len(labelled) else None,
            scorers=self._scorers(quality, seed, ctx, part.rows),
            drift=None if calibration is None else calibration.drift(part.rows),
        )


def _summarise(
    name: str, value: Any, quality: Any, rng: np.random.Generator, ctx: RunContext
) -> ScorerSummary:
    ctx.check()
    direction = SCORERS[name].direction
    uncertainty = -value if direction == "confidence" else value
    finite = value[np.isfinite(value)]
    some = len(finite) > 0
    labelled = np.isfinite(value) & np.isfinite(quality)
    return ScorerSummary(
        direction=direction,
        n_valid=len(finite),
        mean=float(finite.mean()) if some else None,
        median=float(np.median(finite)) if some else None,
        std=float(finite.std()) if some else None,
        min=float(finite.min()) if some else None,
        max=float(finite.max()) if some else None,
        evaluation=_evaluate(uncertainty[labelled], quality[labelled], rng)
        if labelled.any()
        else None,
    )


def _evaluate(uncertainty: Any, quality: Any, rng: np.random.Generator) -> Evaluation:
    estimates = ranking.bootstrap(uncertainty, quality, rng)
    return Evaluation(
        n=len(uncertainty),
        n_hallucinated=int((quality == 0).sum()),
        **estimates,
    )


def _parse(path: Path) -> list[ItemResult]:
    with path.open("rb") as reader:
        return [ItemResult.model_validate_json(line) for line in reader]


def _save(path: Path, ctx: RunContext) -> ArtifactRef:
    return ctx.save_artifact("items.jsonl", path, "application/x-ndjson")


def _provenance(spec: Spec, spent: Mapping[str, int]) -> Provenance:
    return Provenance.of(
        JOB,
        spec.seed,
        **provenance_fields(spec.similarity, spec.clustering),
        **judged(spec),
        tau=spec.tau,
        include_self=spec.include_self,
        **spent,
    )
