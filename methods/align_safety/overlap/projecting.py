"""Runs `project-adapter`: each variant of an adapter as a model and as two files."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import torch
from safetensors.torch import save_file

from methods.align_safety.overlap import presenting
from methods.align_safety.overlap.directions import Leading, leading
from methods.align_safety.overlap.grouping import lift_of
from methods.align_safety.overlap.measures import Factors, Overlap, measure
from methods.align_safety.overlap.measuring import as_row, directions, fitting
from methods.align_safety.overlap.projection import project_factors
from methods.align_safety.overlap.spec import (
    PROJECT_JOB,
    AdapterVariant,
    MatrixOverlap,
    ProjectResult,
    ProjectSpec,
    VariantMade,
)
from methods.align_safety.overlap.weight_files import (
    CONFIG,
    WEIGHTS,
    Adapter,
    Module,
    open_adapter,
    open_model,
)
from methods.context import RunContext
from methods.errors import JobError
from methods.results import ArtifactRef, Provenance, counted


@dataclass
class _Making:
    """A variant under way: its tensors, and what it keeps."""

    variant: AdapterVariant
    tensors: dict[str, torch.Tensor]
    before: list[MatrixOverlap]
    after: list[MatrixOverlap]
    kept: float = 0.0
    whole: float = 0.0
    cut: int = 0


def run(spec: ProjectSpec, ctx: RunContext) -> ProjectResult:
    """Make the variants of a spec; see `ProjectSpec` and `ProjectResult`."""
    adapter, base = open_adapter(spec.adapter, ctx), open_model(spec.base, ctx, "base")
    modules = adapter.modules
    making = [_Making(one, {}, [], []) for one in spec.variants]
    projects = any(one.side is not None for one in spec.variants)
    for done, module in enumerate(modules):
        ctx.progress("projecting", done, len(modules), "modules")
        tensor = fitting(base, module)
        weight = None
        if projects:
            weight = tensor.read()
            weight = weight if weight.dtype == torch.float64 else weight.float()
            weight = weight.T if module.transposed else weight
        _change(module, weight, making)
    made = [_saved(spec, place, one, adapter, ctx) for place, one in enumerate(making)]
    result = ProjectResult(
        variants=made,
        modules=len(modules),
        rank=max(one.a.shape[0] for one in modules),
        provenance=Provenance.of(PROJECT_JOB, spec.seed, "torch"),
    )
    for one in making:
        if one.cut:
            result.warnings.append(
                f"{one.variant.label}: {counted(one.cut, 'matrix', 'matrices')} have no more than "
                "k directions; one less than their smaller side was taken."
            )
    return presenting.projection(result)


def _change(module: Module, weight: torch.Tensor | None, making: list[_Making]) -> None:
    a, b = module.a.read(), module.b.read()
    update = Factors(a, b, module.scale)
    squared = update.squared_norm()
    found: Leading | None = None
    for one in making:
        variant = one.variant
        one.whole += squared
        if variant.side is None:
            assert variant.scale is not None, "a variant has one of them"
            new_a, new_b = a.double(), b.double() * variant.scale
            one.kept += squared * variant.scale**2
        else:
            assert weight is not None, "a variant projects"
            assert variant.k is not None, "a projection has both"
            k, cut = directions(variant.k, weight.shape)
            one.cut += cut
            found = _of(weight, k, found)
            part = Leading(found.left[:, :k], found.values[:k], found.right[:, :k])
            new_a, new_b, kept = project_factors(a, b, part, variant.side, variant.rescale)
            one.kept += squared * kept
            one.before.append(_row(module.name, measure(weight, update, part)))
            changed = Factors(new_a, new_b, module.scale)
            one.after.append(_row(module.name, measure(weight, changed, part)))
        one.tensors[module.a.name] = new_a.to(a.dtype).contiguous()
        one.tensors[module.b.name] = new_b.to(b.dtype).contiguous()


def _of(weight: torch.Tensor, k: int, found: Leading | None) -> Leading:
    """So many directions or more; those of an earlier variant where they are enough."""
    return found if found is not None and len(found.values) >= k else leading(weight, k)


def _row(name: str, found: Overlap) -> MatrixOverlap:
    return as_row(name, found, None, [])


def _saved(
    spec: ProjectSpec,
    place: int,
    one: _Making,
    adapter: Adapter,
    ctx: RunContext,
) -> VariantMade:
    folder = ctx.workdir / f"variant-{place}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, tensor in one.tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise JobError("numerical_failure", f"{one.variant.label}: {name} is not finite.")
    save_file(one.tensors, folder / WEIGHTS, metadata={"format": "pt"})
    named = spec.base.model
    if named is not None and ctx.models.is_made(named):
        # An adapter is of a declared model only.
        named = None
    written = dict(adapter.config)
    if named is not None:
        # The name that the operator gave it, not where it lies on this machine.
        written["base_model_name_or_path"] = str(named)
    (folder / CONFIG).write_text(json.dumps(written, indent=2), "utf-8")
    files = [
        ctx.save_artifact(f"variant-{place}.{name}", folder / name, media)
        for name, media in ((WEIGHTS, "application/octet-stream"), (CONFIG, "application/json"))
    ]
    model: ArtifactRef | None = None
    if named is not None:
        for extra in () if adapter.folder is None else adapter.folder.iterdir():
            # A tokenizer that the adapter brought stays with it.
            if extra.name not in (WEIGHTS, CONFIG) and extra.is_file():
                shutil.copyfile(extra, folder / extra.name)
        model = ctx.save_model(f"variant-{place}", folder, str(named))
    return VariantMade(
        label=one.variant.label,
        kept_energy=one.kept / one.whole if one.whole else 1.0,
        lift_before=lift_of(one.before),
        lift_after=lift_of(one.after),
        model=model,
        files=files,
    )
