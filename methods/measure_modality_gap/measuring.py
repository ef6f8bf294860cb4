"""Measures one layer: passes over its tokens, in chunks, in double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Literal

import numpy as np

from methods.arrays.moments import CrossMoments, merged
from methods.errors import JobError
from methods.measure_modality_gap.numbers import measures, nulls
from methods.measure_modality_gap.numbers.frechet import (
    frechet,
    moments_of,
    official_accurate,
    official_fast,
    scaled,
)
from methods.measure_modality_gap.reading.clouds import CHUNK, Cloud
from methods.measure_modality_gap.reading.moments_file import LayerMoments, SideMoments
from methods.measure_modality_gap.result import GapLayer, NullBand
from methods.measure_modality_gap.settings import GapSettings
from methods.seeds import derived_seed
from methods.typing import BoolArray, FloatArray, IntArray

#: Tokens of a modality that measures of couples, and the null, are of at most.
MOST_COUPLES, MOST_NULL = 2_000, 20_000
#: Tokens whose medians replace outliers, at most.
_MOST_MEDIAN = 200_000
#: Up to this width pairs are resampled, up to the next one left out in groups.
WIDEST_BOOTSTRAP, WIDEST_JACKKNIFE = 256, 1_024
_GROUPS, _FEW_GROUPS = 100, 10

Errors = Literal["bootstrap", "jackknife", ""]


@dataclass(frozen=True)
class LayerFound:
    """A layer, and what further jobs and intervals need of it.

    Attributes:
        varied: distances of resamples, or without each group. errors: which of the two.
        groups: pairs are in so many groups.
    """

    layer: GapLayer
    moments: LayerMoments
    varied: FloatArray
    errors: Errors
    groups: int


@dataclass(frozen=True)
class Side:
    """What one pass over a modality says.

    Attributes:
        norms: (n,). mean, unit_mean: (d,), of tokens and of tokens cut to length 1.
        outliers: (n,) tokens of unusual norm. median: (d,) what replaces them; None: nothing does.
    """

    cloud: Cloud
    norms: FloatArray
    mean: FloatArray
    unit_mean: FloatArray
    outliers: BoolArray
    median: FloatArray | None

    @classmethod
    def of(cls, cloud: Cloud, outliers: str, rng: np.random.Generator) -> Side:
        """Pass over a cloud; `outliers` as in `GapSettings`."""
        norms, total, units = [], np.zeros(cloud.shape[1]), np.zeros(cloud.shape[1])
        for rows in cloud.chunks():
            # Products with vectors: nothing of the size of the rows is made.
            own = np.sqrt(np.einsum("ij,ij->i", rows, rows))
            norms.append(own)
            total += np.ones(len(rows)) @ rows
            units += (1 / np.where(own > 0, own, 1)) @ rows
        every: FloatArray = np.concatenate(norms)
        unusual = np.zeros(len(every), dtype=np.bool_)
        if outliers != "none":
            unusual[measures.outlier_rows(every)] = True
        median = None
        if outliers == "replace" and unusual.any():
            median = _medians(cloud, rng)
        n = len(every)
        return cls(cloud, every, total / n, units / n, unusual, median)

    def treated(self, places: IntArray) -> FloatArray:
        """Tokens with outliers replaced or left out."""
        rows, unusual = self.cloud.rows(places), self.outliers[places]
        if self.median is not None:
            rows[unusual] = self.median
            return rows
        return rows[~unusual]

    def moments(self, places: IntArray) -> CrossMoments | None:
        """Of some tokens, None where none is left."""
        step = max(1, CHUNK // self.cloud.shape[1])
        parts = (self.treated(places[at : at + step]) for at in range(0, len(places), step))
        found = (moments_of(part) for part in parts if len(part))
        first = next(found, None)
        return None if first is None else merged(chain([first], found))

    def summed(self, parts: Sequence[CrossMoments | None]) -> SideMoments:
        """With the moments of its parts together."""
        whole = merged(one for one in parts if one is not None)
        norms = self.norms
        return SideMoments(whole, float(norms.sum()), len(norms), int(self.outliers.sum()))


def measure(
    layer: int, v: Cloud, t: Cloud, settings: GapSettings, check: Callable[[], None]
) -> LayerFound:
    """All measures of a layer.

    Args:
        v, t: image and text tokens, two at least, of one width.

    Raises:
        JobError: `numerical_failure` where all text norms are 0 and are to be the scale.
    """
    # Draws depend on the seed and the layer, and on no other layer.
    rng = np.random.default_rng(derived_seed(settings.seed, "gap", layer))
    image, text = (Side.of(cloud, settings.outliers, rng) for cloud in (v, t))
    norm_t = float(text.norms.mean())
    scale = _scale(settings.scale, norm_t, layer)
    check()
    groups, errors = _grouped(v, t, settings)
    parts = [(image.moments(first), text.moments(second)) for first, second in groups]
    moments = LayerMoments(
        image.summed([part for part, _ in parts]), text.summed([part for _, part in parts])
    )
    if min(side.moments.count for side in moments) < 2:
        raise JobError(
            "input_invalid", f"Layer {layer}: fewer than two tokens that are no outlier."
        )
    away = image.mean - text.mean
    between = float(np.linalg.norm(away))
    some_v, some_t = (
        side.cloud.rows(_some(side.cloud, MOST_COUPLES, rng)) for side in (image, text)
    )
    # Of tokens as they are: outliers count in all but the distance.
    more = {
        "centroid_l2": between,
        "centroid_l2_text_scaled": between / norm_t if norm_t > 0 else None,
        "centroid_cosine_distance": measures.cosine_distance(image.mean, text.mean),
        "unit_centroid_l2": float(np.linalg.norm(image.unit_mean - text.unit_mean)),
        "mean_cosine_distance": float(1 - image.unit_mean @ text.unit_mean),
        "mean_pairwise_sq": float(
            (image.norms**2).mean() + (text.norms**2).mean() - 2 * image.mean @ text.mean
        ),
        **asdict(measures.of_couples(some_v, some_t)),
        "auc": measures.auc_along(some_v, some_t, away),
        "compared": max(len(some_v), len(some_t)),
        "null": _null(image, text, scale, settings.permutations, rng, check),
    }
    base = of_moments(layer, moments, settings)
    found = GapLayer.model_validate({**base.model_dump(), **more})
    varied = np.zeros(0)
    if errors == "bootstrap":
        seed = derived_seed(settings.seed, "pairs")
        varied = nulls.resampled(parts, settings.bootstrap, seed, scale, check)
    elif errors == "jackknife":
        varied = nulls.left_out(parts, scale, check)
    return LayerFound(found, moments, varied, errors, len(groups))


def of_moments(layer: int, moments: LayerMoments, settings: GapSettings) -> GapLayer:
    """What moments alone say of a layer.

    Raises:
        JobError: as `measure`.
    """
    v, t = moments.v.moments, moments.t.moments
    norm_v, norm_t = moments.v.norm, moments.t.norm
    scale = _scale(settings.scale, norm_t, layer)
    all_v, all_t = scaled(v, scale), scaled(t, scale)
    distance = frechet(all_v, all_t)
    between = float(np.linalg.norm(v.mean_a - t.mean_a))
    spread = float(np.trace(v.scatter) / v.count + np.trace(t.scatter) / t.count)
    fast, accurate = "official_fast" in settings.sqrt, "official_accurate" in settings.sqrt
    return GapLayer(
        layer=layer,
        fid=distance.fid,
        mean_sq=distance.mean_sq,
        spread=distance.spread,
        tr_v=distance.tr_v,
        tr_t=distance.tr_t,
        tr_sqrt=distance.tr_sqrt,
        fid_official_fast=official_fast(all_v, all_t) if fast else None,
        fid_official_accurate=official_accurate(all_v, all_t) if accurate else None,
        scale=scale,
        r=moments.v.tokens,
        s=moments.t.tokens,
        width=len(v.mean_a),
        outliers_v=moments.v.outliers,
        outliers_t=moments.t.outliers,
        norm_v=norm_v,
        norm_t=norm_t,
        norm_ratio=norm_v / norm_t if norm_t > 0 else None,
        centroid_l2=between,
        centroid_l2_text_scaled=between / norm_t if norm_t > 0 else None,
        centroid_cosine_distance=measures.cosine_distance(v.mean_a, t.mean_a),
        mean_pairwise_sq=between**2 + spread,
    )


def sketch(v: Cloud, t: Cloud, seed: int, most: int = 500) -> list[tuple[float, float, bool]]:
    """Tokens of both modalities on the two directions in which they differ most."""
    rng = np.random.default_rng(derived_seed(seed, "sketch"))
    some = [cloud.rows(_some(cloud, most, rng)) for cloud in (v, t)]
    both = np.concatenate(some)
    both -= both.mean(axis=0)
    _, _, directions = np.linalg.svd(both, full_matrices=False)
    points = both @ directions[:2].T
    if points.shape[1] < 2:
        points = np.column_stack([points[:, 0], np.zeros(len(points))])
    return [(float(x), float(y), row < len(some[0])) for row, (x, y) in enumerate(points)]


def _scale(kind: str, norm_t: float, layer: int) -> float:
    if kind == "none":
        return 1.0
    if not norm_t > 0:
        raise JobError(
            "numerical_failure",
            f"Layer {layer}: all text tokens are 0, so that the scale is undefined; set scale to "
            "none.",
            details={"layer": layer},
        )
    return 1 / norm_t


def _medians(cloud: Cloud, rng: np.random.Generator) -> FloatArray:
    """(d,) lower median of each coordinate."""
    width = cloud.shape[1]
    rows = _some(cloud, _MOST_MEDIAN, rng)
    n = len(rows)
    tokens = cloud.tokens if n == len(cloud.tokens) else cloud.tokens[rows]
    found = np.empty(width)
    step = max(1, 4 * CHUNK // n)
    for at in range(0, width, step):
        # Each coordinate in one piece of memory, in the type it came in: a median is one of them.
        columns = np.array(tokens[:, at : at + step].T, order="C")
        columns.partition((n - 1) // 2, axis=1)
        found[at : at + step] = columns[:, (n - 1) // 2]
    return found


def _some(cloud: Cloud, most: int, rng: np.random.Generator) -> IntArray:
    """Places of all tokens, or of so many drawn ones, ascending."""
    n = cloud.shape[0]
    every: IntArray = np.arange(n)
    return every if n <= most else np.sort(rng.choice(n, most, replace=False))


def _null(
    image: Side,
    text: Side,
    scale: float,
    draws: int,
    rng: np.random.Generator,
    check: Callable[[], None],
) -> NullBand | None:
    if draws == 0:
        return None
    some = [side.treated(_some(side.cloud, MOST_NULL, rng)) * scale for side in (image, text)]
    if min(map(len, some)) < 2:
        return None
    found = nulls.shuffled_labels(some[0], some[1], draws, rng, check)
    return NullBand(
        draws=draws,
        dimensions=found.width,
        observed=found.observed,
        mean=float(found.drawn.mean()),
        high=float(np.quantile(found.drawn, 0.95)),
        p=float((1 + (found.drawn >= found.observed - 1e-12).sum()) / (draws + 1)),
    )


def _grouped(
    v: Cloud, t: Cloud, settings: GapSettings
) -> tuple[list[tuple[IntArray, IntArray]], Errors]:
    """Tokens of both modalities by group of pairs, and how errors are made of the groups."""
    width = v.shape[1]
    everything = [(np.arange(v.shape[0]), np.arange(t.shape[0]))]
    if v.pairs is None or t.pairs is None or settings.bootstrap == 0 or width > WIDEST_JACKKNIFE:
        return everything, ""
    names = np.unique(np.concatenate([v.pairs, t.pairs]))
    most = _GROUPS if width <= WIDEST_BOOTSTRAP else _FEW_GROUPS
    count = min(most, len(names))
    if count < 3:
        return everything, ""
    group = np.arange(len(names)) * count // len(names)
    own_v = group[np.searchsorted(names, v.pairs)]
    own_t = group[np.searchsorted(names, t.pairs)]
    found = [(np.flatnonzero(own_v == one), np.flatnonzero(own_t == one)) for one in range(count)]
    return found, "bootstrap" if width <= WIDEST_BOOTSTRAP else "jackknife"
