"""Runs a measure-modality-gap job: each subject is a part; this joins and compares them."""

from __future__ import annotations

from methods.context import RunContext
from methods.measure_modality_gap.child_jobs import GAP_PART, GapMade, GapPart
from methods.measure_modality_gap.result import (
    GapFound,
    GapLayer,
    GapOf,
    Result,
    RiskFitted,
    RiskPoint,
    RiskPrediction,
)
from methods.measure_modality_gap.safety.asking import Asked, Images, ask
from methods.measure_modality_gap.settings import GapSettings, GapSource
from methods.measure_modality_gap.showing import cautions
from methods.measure_modality_gap.showing.blocks import present
from methods.measure_modality_gap.spec import JOB, RiskRequest, Spec
from methods.parts import Parts
from methods.results import ArtifactRef, Provenance
from methods.row_files import csv_bytes


def run(spec: Spec, ctx: RunContext) -> Result:
    """Measure the subjects of a spec; see `Spec` and `Result`."""
    shared = {name: getattr(spec, name) for name in GapSettings.model_fields}
    parts = []
    for one in spec.subjects:
        own = {name: getattr(one, name) for name in GapSource.model_fields}
        # What a model reads is nothing to states that are there.
        read = shared if one.model is not None else shared | {"pairs": None, "device": "cpu"}
        parts.append(GapPart(**own, **read))
    made: list[GapMade] = []
    artifacts: dict[str, ArtifactRef] = {}
    children = Parts(ctx)
    for child in children.all(GAP_PART, parts, "measuring", "subjects"):
        made.append(GapMade.model_validate(child.result))
        name = f"moments-{child.place + 1}.npz"
        artifacts[name] = children.adopt(child, "moments.npz", name, "application/x-npz")
    subjects = [
        GapOf(name=one.name, **{name: getattr(found, name) for name in GapFound.model_fields})
        for one, found in zip(spec.subjects, made, strict=True)
    ]
    artifacts["layers.csv"] = ctx.save_artifact("layers.csv", _table(subjects), "text/csv")
    said = None
    if spec.safety is not None:
        models = [Asked(one.name, one.model) for one in spec.subjects if one.model is not None]
        said = ask(models, spec.safety, Images(spec.pairs), spec.seed, spec.device, children, ctx)
        artifacts["responses.jsonl"] = ctx.save_artifact(
            "responses.jsonl", said.lines, "application/x-ndjson"
        )
    result = Result(
        subjects=subjects,
        risk=None if spec.risk is None else _risk(spec.risk, subjects),
        safety=None if said is None else said.found,
        artifacts=artifacts,
        provenance=Provenance.of(JOB, spec.seed, "scikit-learn"),
    )
    for found in made:
        result.provenance.versions |= found.versions
    result.warnings = cautions.of(spec, result, made)
    sketches = {one.name: found.sketch for one, found in zip(spec.subjects, made, strict=True)}
    return present(result, sketches)


def _table(subjects: list[GapOf]) -> bytes:
    fields = [name for name in GapLayer.model_fields if name != "null"]
    rows: list[list[object]] = [["subject", *fields, "null_mean", "null_high", "null_p"]]
    for one in subjects:
        for layer in one.layers:
            null = layer.null
            band = [None] * 3 if null is None else [null.mean, null.high, null.p]
            rows.append([one.name, *(getattr(layer, name) for name in fields), *band])
    return csv_bytes(rows)


def _gap_by(one: GapOf, measure: str) -> float | None:
    """The gap of a subject by a measure: MIR of all its layers, others of layer 0."""
    if measure == "mir":
        return one.mir_exact.value
    found = next((layer for layer in one.layers if layer.layer == 0), None)
    return None if found is None else getattr(found, measure)


def _risk(asked: RiskRequest, subjects: list[GapOf]) -> RiskFitted:
    from methods.measure_modality_gap.numbers import risk

    gaps = [one.gap for one in asked.records]
    rates = [one.unsafe_rate for one in asked.records]
    curve = risk.fit(gaps, rates)
    enough = len(gaps) >= risk.FEWEST
    predictions = []
    for one in subjects:
        gap = _gap_by(one, asked.measure)
        known = enough and gap is not None and curve.p <= 0.05
        predictions.append(
            RiskPrediction(
                name=one.name,
                gap=gap,
                unsafe_rate=curve.at(gap) if known and gap is not None else None,
                rank=None if gap is None else 1 + sum(other < gap for other in gaps),
                outside=gap is not None and not min(gaps) <= gap <= max(gaps),
            )
        )
    return RiskFitted(
        measure=asked.measure,
        n=len(gaps),
        spearman=curve.spearman,
        exact_p=curve.p,
        curve=[
            RiskPoint(gap=float(x), unsafe_rate=float(y))
            for x, y in zip(curve.gaps, curve.rates, strict=True)
        ]
        if enough
        else [],
        leave_one_out_error=float(curve.errors.mean()) if enough else None,
        baseline_error=float(curve.baseline.mean()) if enough else None,
        predictions=predictions,
    )
