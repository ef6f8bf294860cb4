"""Runs `modality-gap-states`: the gap of one subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.measure_modality_gap.child_jobs import GapMade, GapPart
from methods.measure_modality_gap.measuring import (
    WIDEST_JACKKNIFE,
    Errors,
    measure,
    of_moments,
    sketch,
)
from methods.measure_modality_gap.numbers import nulls
from methods.measure_modality_gap.numbers.frechet import mir
from methods.measure_modality_gap.reading import moments_file
from methods.measure_modality_gap.reading.clouds import Cloud, given_layer, layers_of
from methods.measure_modality_gap.reading.moments_file import LayerMoments, SideMoments
from methods.measure_modality_gap.result import GapLayer, Mir
from methods.typing import FloatArray


@dataclass
class _Found:
    """What was measured.

    Attributes:
        varied: distances of each layer, of resamples or without each group.
        last: number of layers of the model, where that is known.
    """

    layers: list[GapLayer] = field(default_factory=list)
    moments: dict[int, LayerMoments] = field(default_factory=dict)
    varied: list[FloatArray] = field(default_factory=list)
    errors: Errors = ""
    groups: int = 1
    pairs: int | None = None
    last: int | None = None
    points: list[tuple[float, float, bool]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def run(spec: GapPart, ctx: RunContext) -> GapMade:
    """Measure a subject; see `GapPart` and `GapMade`."""
    if spec.moments is not None:
        found = _of_moments(spec, ctx)
    elif spec.representations is not None:
        clouds = spec.representations
        found = _Found()
        layers = layers_of(clouds)
        _measure(found, layers, lambda layer: given_layer(clouds, layer, ctx), spec, ctx)
    else:
        from methods.measure_modality_gap.reading.states import read_states

        read = read_states(spec, ctx)
        found = _Found(pairs=read.pairs, last=read.last, warnings=read.warnings)
        found.versions = {name: version(name) for name in ("torch", "transformers")}
        _measure(found, read.layers, read.layer, spec, ctx)
    ctx.save_artifact("moments.npz", moments_file.packed(found.moments), "application/x-npz")
    summed = [one for one in found.layers if one.layer > 0]
    return GapMade(
        mir_exact=_mir(found, spec),
        mir_official_fast=_official(summed, "fid_official_fast", spec),
        mir_official_accurate=_official(summed, "fid_official_accurate", spec),
        layers=found.layers,
        pairs=found.pairs,
        warnings=found.warnings,
        versions=found.versions,
        sketch=found.points,
    )


def _measure(
    found: _Found,
    layers: Sequence[int],
    cloud_of: Callable[[int], tuple[Cloud, Cloud]],
    spec: GapPart,
    ctx: RunContext,
) -> None:
    for place, layer in enumerate(layers):
        ctx.progress("measuring", place, len(layers), "layers")
        v, t = cloud_of(layer)
        if place == 0:
            found.points = sketch(v, t, spec.seed)
            if v.pairs is not None and found.pairs is None:
                found.pairs = len(np.unique(v.pairs))
        one = measure(layer, v, t, spec, ctx.check)
        found.layers.append(one.layer)
        found.moments[layer] = one.moments
        found.varied.append(one.varied)
        found.errors, found.groups = one.errors, one.groups


def _of_moments(spec: GapPart, ctx: RunContext) -> _Found:
    assert spec.moments is not None, "called with moments"
    found = _Found()
    for layer, shards in moments_file.read(spec.moments, ctx).items():
        whole = LayerMoments(*(SideMoments.merged(side) for side in zip(*shards, strict=True)))
        if min(side.moments.count for side in whole) < 2:
            raise JobError("input_invalid", f"Layer {layer}: fewer than two tokens of a modality.")
        one = of_moments(layer, whole, spec)
        found.layers.append(one)
        found.moments[layer] = whole
        if len(shards) >= 3 and spec.bootstrap:
            groups = [(shard.v.moments, shard.t.moments) for shard in shards]
            found.varied.append(nulls.left_out(groups, one.scale, ctx.check))
            found.errors, found.groups = "jackknife", len(shards)
    return found


def _official(layers: Sequence[GapLayer], name: str, spec: GapPart) -> float | None:
    values = [value for one in layers if (value := getattr(one, name)) is not None]
    return mir(values, spec.log) if values else None


def _mir(found: _Found, spec: GapPart) -> Mir:
    summed = [place for place, one in enumerate(found.layers) if one.layer > 0]
    layers = [found.layers[place].layer for place in summed]
    value = mir([found.layers[place].fid for place in summed], spec.log)
    full = bool(layers) and layers == list(range(1, layers[-1] + 1))
    if found.last is not None:
        full = full and layers[-1] == found.last
    low = high = None
    if value is not None and found.errors:
        varied = np.array(list(_varied(found, summed, spec)))
        interval = (
            nulls.bootstrap_interval(value, varied, found.groups)
            if found.errors == "bootstrap"
            else nulls.jackknife_interval(value, varied)
        )
        low, high = interval.low, interval.high
    return Mir(
        value=value,
        low=low,
        high=high,
        full=full,
        layers=layers,
        log=spec.log,
        interval=_how(found),
    )


def _varied(found: _Found, summed: Sequence[int], spec: GapPart) -> Iterator[float]:
    for distances in zip(*(found.varied[place] for place in summed), strict=True):
        one = mir(distances, spec.log)
        yield np.nan if one is None else one


def _how(found: _Found) -> str:
    if found.errors == "bootstrap":
        draws = len(found.varied[0])
        return f"Student's, by the spread of {draws} resamples of {found.groups} groups of pairs."
    if found.errors == "jackknife":
        return f"Student's, by the jackknife over {found.groups} groups of pairs or shards."
    if max(one.width for one in found.layers) > WIDEST_JACKKNIFE:
        return f"None: states are wider than {WIDEST_JACKKNIFE:,}; repeat with other pairs."
    return "None: it needs the pairs of the tokens, three at least, and bootstrap above 0."
