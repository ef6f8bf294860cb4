"""Runs `measure-update-overlap`: matrix by matrix, each file kept when it is done."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from pathlib import Path

import torch

from methods.align_safety.overlap import presenting
from methods.align_safety.overlap.directions import leading
from methods.align_safety.overlap.grouping import about_rounding, grouped
from methods.align_safety.overlap.measures import (
    Factors,
    Full,
    Overlap,
    Sketched,
    Update,
    measure,
)
from methods.align_safety.overlap.spec import (
    OVERLAP_JOB,
    BySide,
    MatrixOverlap,
    OverlapResult,
    OverlapSpec,
)
from methods.align_safety.overlap.weight_files import (
    Module,
    Tensor,
    WeightFiles,
    is_embedding,
    kind_of,
    layer_of,
    open_adapter,
    open_model,
)
from methods.context import RunContext
from methods.errors import JobError
from methods.results import Provenance, counted
from methods.resume import ResumeStore
from methods.row_files import csv_bytes

#: Below this relative norm a type hides an update (measured: at 1e-4 bfloat16 changes 2 % of the
#: weights, and a rank-1 update reads as stable rank 8.5).
_ROUNDING = {"BF16": 4.5e-3, "F16": 5.6e-4}
_INLINE, _NAMED = 500, 100


def run(spec: OverlapSpec, ctx: RunContext) -> OverlapResult:
    """Measure the overlap of a spec; see `OverlapSpec` and `OverlapResult`."""
    pairs, skipped = _pairs(spec, ctx)
    rows: list[MatrixOverlap] = []
    store = ResumeStore(ctx, spec.model_dump_json())
    files: dict[Path, list[_Pair]] = {}
    for pair in pairs:
        files.setdefault(pair.base.file, []).append(pair)
    done = 0
    for own in files.values():
        name = f"rows-{done}"
        kept = store.find(name)
        if kept is not None:
            found = [MatrixOverlap.model_validate_json(line) for line in kept.splitlines()]
        else:
            found = []
            for pair in own:
                ctx.progress("measuring", done + len(found), len(pairs), "matrices")
                found.append(pair.measured(spec))
            store.keep(name, "\n".join(one.model_dump_json() for one in found).encode())
        rows += found
        done += len(own)
    rows.sort(key=lambda one: (one.layer is None, one.layer or 0, one.name))
    table = _csv(rows)
    result = OverlapResult(
        matrices=rows[:_INLINE],
        n_matrices=len(rows),
        by_kind=grouped(rows, by_layer=False),
        by_layer=grouped(rows, by_layer=True),
        skipped=skipped[:_NAMED],
        artifacts={"overlap.csv": ctx.save_artifact("overlap.csv", table, "text/csv")},
        provenance=Provenance.of(OVERLAP_JOB, spec.seed, "torch", estimator=spec.estimator),
    )
    result.warnings = _cautions(rows, skipped)
    return presenting.overlap(result)


class _Pair:
    """A matrix and what was added to it."""

    def __init__(self, name: str, base: Tensor, update: Module | Tensor) -> None:
        self.name, self.base, self.update = name, base, update

    def measured(self, spec: OverlapSpec) -> MatrixOverlap:
        weight = self.base.read()
        weight = weight if weight.dtype == torch.float64 else weight.float()
        unchanged, types = None, {self.base.dtype}
        update: Update
        if isinstance(self.update, Module):
            if self.update.transposed:
                weight = weight.T
            update = Factors(self.update.a.read(), self.update.b.read(), self.update.scale)
            types = set()
        else:
            tuned = self.update.read()
            tuned = tuned if tuned.dtype == torch.float64 else tuned.float()
            unchanged = float((tuned == weight).double().mean())
            types.add(self.update.dtype)
            delta = tuned - weight
            exact = spec.estimator == "exact"
            update = Full(delta) if exact else Sketched(delta, spec.probes)
        k, cut = directions(spec.k, weight.shape)
        sketch = spec.estimator == "hutchinson" and not isinstance(self.update, Module)
        found = measure(weight, update, leading(weight, k, sketch))
        flags = ["k_cut"] if cut else []
        if found.fro == 0:
            flags.append("zero")
        elif any(found.rel_norm < _ROUNDING.get(kind, 0.0) for kind in types):
            flags.append("rounding_limited")
        return as_row(self.name, found, unchanged, flags)


def directions(k: float, shape: torch.Size) -> tuple[int, bool]:
    """How many directions a request means for a matrix, and whether it has fewer."""
    smaller = min(shape)
    wanted = max(1, round(k * smaller)) if isinstance(k, float) else k
    most = max(1, smaller - 1)
    return min(wanted, most), wanted > most


def as_row(name: str, found: Overlap, unchanged: float | None, flags: list[str]) -> MatrixOverlap:
    """The numbers of a matrix as a result has them."""
    return MatrixOverlap(
        name=name,
        kind=kind_of(name),
        layer=layer_of(name),
        shape=list(found.shape),
        k=found.k,
        rel_norm=found.rel_norm,
        fro=found.fro,
        spectral=found.spectral,
        stable_rank=found.stable_rank,
        entropy_rank=found.entropy_rank,
        energy=BySide.model_validate(found.energy),
        weighted=BySide.model_validate(found.weighted),
        weighted_full=BySide.model_validate(found.weighted_full),
        null=BySide.model_validate(found.null),
        null_weighted=BySide.model_validate(found.null_weighted),
        lift=BySide.model_validate(found.lift),
        frobenius_cosine=found.frobenius_cosine,
        affinity=BySide.model_validate(found.affinity),
        unchanged_share=unchanged,
        flags=flags,
    )


def _pairs(spec: OverlapSpec, ctx: RunContext) -> tuple[list[_Pair], list[str]]:
    base = open_model(spec.base, ctx, "base")
    if spec.update.adapter is not None:
        modules = open_adapter(spec.update.adapter, ctx).modules
        chosen = [one for one in modules if _matches(one.name, spec.modules)]
        _check_some(chosen, spec, [one.name for one in modules])
        return [_Pair(one.name, fitting(base, one), one) for one in chosen], []
    assert spec.update.tuned is not None, "the spec has one of them"
    tuned = open_model(spec.update.tuned, ctx, "update.tuned")
    return _tuned_pairs(spec, base, tuned)


def _tuned_pairs(
    spec: OverlapSpec, base: WeightFiles, tuned: WeightFiles
) -> tuple[list[_Pair], list[str]]:
    # A head that shares its weights with the embeddings is in a file or not.
    names = {n for n in {*base.tensors} ^ {*tuned.tensors} if not is_embedding(n)}
    wrong = [
        f"{name} is only in {'base' if name in base.tensors else 'update.tuned'}"
        for name in sorted(names)
    ]
    both = [name for name in base.tensors if name in tuned.tensors]
    for name in both:
        one, other = base.tensors[name], tuned.tensors[name]
        if one.shape != other.shape:
            wrong.append(
                f"{name} is {list(one.shape)} in base, {list(other.shape)} in update.tuned"
            )
        elif one.dtype != other.dtype and len(one.shape) == 2 and not spec.any_type:
            wrong.append(f"{name} is {one.dtype} in base, {other.dtype} in update.tuned")
    if wrong:
        more = f" and {len(wrong) - 10:,} more" if len(wrong) > 10 else ""
        raise JobError(
            "input_invalid",
            f"base and update.tuned do not have the same tensors: {'; '.join(wrong[:10])}{more}.",
            details={"differences": wrong[:_NAMED]},
        )
    matrices = [n for n in both if len(base.tensors[n].shape) == 2 and not is_embedding(n)]
    skipped = [name for name in both if name not in set(matrices)]
    chosen = [name for name in matrices if _matches(name.removesuffix(".weight"), spec.modules)]
    _check_some(chosen, spec, matrices)
    pairs = [
        _Pair(name.removesuffix(".weight"), base.tensors[name], tuned.tensors[name])
        for name in chosen
    ]
    return pairs, skipped


def _check_some(chosen: list[Module] | list[str], spec: OverlapSpec, names: list[str]) -> None:
    if not chosen:
        raise JobError(
            "input_invalid",
            f"modules: {', '.join(spec.modules)} match none of {', '.join(names[:20])}"
            f"{' and more' if len(names) > 20 else ''}.",
        )


def fitting(base: WeightFiles, module: Module) -> Tensor:
    """The weight that a module of an adapter changes. Raises `JobError` where shapes differ."""
    found = base.of_module(module.name)
    rows, columns = module.b.shape[0], module.a.shape[1]
    wanted = (columns, rows) if module.transposed else (rows, columns)
    if found.shape != wanted:
        raise JobError(
            "input_invalid",
            f"{module.name} is {list(found.shape)} in base, and the adapter changes one of "
            f"{list(wanted)}: it belongs to another model.",
            details={"module": module.name},
        )
    return found


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, one) or name.endswith(f".{one}") for one in patterns)


def _csv(rows: list[MatrixOverlap]) -> bytes:
    flat = [dict(_flat(row)) for row in rows]
    return csv_bytes([list(flat[0]), *(one.values() for one in flat)])


def _flat(row: MatrixOverlap) -> Iterator[tuple[str, object]]:
    for name in MatrixOverlap.model_fields:
        value = getattr(row, name)
        if isinstance(value, BySide):
            yield from ((f"{name}_{side}", getattr(value, side)) for side in BySide.model_fields)
        elif isinstance(value, list):
            yield name, " ".join(map(str, value))
        else:
            yield name, value


def _cautions(rows: list[MatrixOverlap], skipped: list[str]) -> list[str]:
    found = about_rounding(rows)
    if zero := sum("zero" in row.flags for row in rows):
        found.append(
            f"{counted(zero, 'matrix', 'matrices')} did not change; their ratios are null."
        )
    if cut := sum("k_cut" in row.flags for row in rows):
        found.append(
            f"{counted(cut, 'matrix', 'matrices')} have no more than k directions; one less than "
            "their smaller side was taken."
        )
    if skipped:
        found.append(
            f"{counted(len(skipped), 'tensor')} of the tuned model are no matrices of a layer "
            "(embeddings, heads, vectors) and were left out; `skipped` names them."
        )
    return found
