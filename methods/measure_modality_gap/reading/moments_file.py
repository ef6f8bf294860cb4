"""The artifact `moments.npz`: moments of a subject by layer, which a later job merges."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from methods.arrays.moments import CrossMoments, merged
from methods.arrays.named import npz
from methods.arrays.npz import savez
from methods.arrays.unpacking import DAMAGED, open_zip
from methods.context import RunContext
from methods.errors import JobError
from methods.jobtype import InputRef
from methods.typing import AnyArray, FloatArray

_MAX_BYTES = 64 << 30
_NAME = re.compile(r"([0-9]{1,4})\.norms")
_FIELDS = ("image.n", "image.mean", "image.scatter", "text.n", "text.mean", "text.scatter")


@dataclass(frozen=True)
class SideMoments:
    """What a modality's tokens say of a layer, unscaled.

    Attributes:
        moments: outliers treated. norm_sum: of the norms of all tokens as they were.
        tokens: all of them. outliers: those of unusual norm.
    """

    moments: CrossMoments
    norm_sum: float
    tokens: int
    outliers: int

    @property
    def norm(self) -> float:
        """Mean norm of the tokens as they were."""
        return self.norm_sum / self.tokens

    @classmethod
    def merged(cls, shards: Sequence[SideMoments]) -> SideMoments:
        """Of all shards together."""
        return cls(
            merged(one.moments for one in shards),
            sum(one.norm_sum for one in shards),
            sum(one.tokens for one in shards),
            sum(one.outliers for one in shards),
        )


class LayerMoments(NamedTuple):
    """Both modalities of a layer."""

    v: SideMoments
    t: SideMoments


def packed(layers: Mapping[int, LayerMoments]) -> bytes:
    """All layers as a file."""
    arrays: dict[str, AnyArray] = {}
    for layer, one in layers.items():
        arrays[f"{layer}.norms"] = np.array(
            [
                *(side.norm_sum for side in one),
                *(side.tokens for side in one),
                *(side.outliers for side in one),
            ],
            dtype=np.float64,
        )
        for name, side in zip(("image", "text"), one, strict=True):
            arrays[f"{layer}.{name}.n"] = np.array(side.moments.count)
            arrays[f"{layer}.{name}.mean"] = side.moments.mean_a
            arrays[f"{layer}.{name}.scatter"] = side.moments.scatter
    return savez(**arrays)


def read(files: Sequence[InputRef], ctx: RunContext) -> dict[int, list[LayerMoments]]:
    """The shards of every layer.

    Raises:
        JobError: `input_invalid` for anything but such files of one model with the same layers.
    """
    found: list[dict[int, LayerMoments]] = []
    for place, ref in enumerate(files):
        label = f"moments, file {place}"
        with ctx.open_input(ref) as stream:
            try:
                with open_zip(stream, label, _MAX_BYTES) as archive:
                    arrays = npz(archive, label, _MAX_BYTES)
                    found.append(_layers(arrays.names, arrays.read, label))
            except DAMAGED as error:
                raise JobError("input_invalid", f"{label}: no npz file: {error}") from error
        if found[0].keys() != found[-1].keys():
            raise JobError(
                "input_invalid",
                f"{label} has the layers {sorted(found[-1])}, the first file {sorted(found[0])}.",
            )
    by_layer = {layer: [shard[layer] for shard in found] for layer in sorted(found[0])}
    for layer, shards in by_layer.items():
        widths = {len(side.moments.mean_a) for shard in shards for side in shard}
        if len(widths) > 1:
            raise JobError(
                "input_invalid",
                f"moments, layer {layer}: states of {' and '.join(map(str, sorted(widths)))} "
                "values; shards must be of one model.",
            )
    return by_layer


def _layers(
    names: Sequence[str], load: Callable[[str], AnyArray], label: str
) -> dict[int, LayerMoments]:
    found = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None:
            continue
        layer = int(match[1])
        missing = [field for field in _FIELDS if f"{layer}.{field}" not in names]
        if missing:
            raise JobError("input_invalid", f"{label}: there is no array {layer}.{missing[0]}.")
        arrays = [load(f"{layer}.{field}") for field in _FIELDS]
        sides = [_moments(arrays[at : at + 3], f"{label}, layer {layer}") for at in (0, 3)]
        norms = np.asarray(load(name), dtype=np.float64)
        if norms.shape != (6,) or not np.isfinite(norms).all() or norms[2] < 1 or norms[3] < 1:
            raise JobError("input_invalid", f"{label}: {name} is not what such a job wrote.")
        v, t = (
            SideMoments(own, float(total), int(tokens), int(outliers))
            for own, total, tokens, outliers in zip(sides, *norms.reshape(3, 2), strict=True)
        )
        found[layer] = LayerMoments(v, t)
    if not found:
        raise JobError(
            "input_invalid",
            f"{label}: there are no moments in it; bring the artifact moments.npz of a "
            "measure-modality-gap job.",
        )
    return found


def _moments(arrays: Sequence[AnyArray], where: str) -> CrossMoments:
    n, mean, scatter = arrays
    width = len(mean) if mean.ndim == 1 else 0
    whole = n.ndim == 0 and int(n) >= 1
    if not whole or scatter.shape != (width, width) or not width:
        raise JobError("input_invalid", f"{where}: shapes do not fit each other.")
    if not (np.isfinite(mean).all() and np.isfinite(scatter).all()):
        raise JobError("input_invalid", f"{where}: there are values not finite.")
    own: FloatArray = mean.astype(np.float64)
    return CrossMoments(int(n), own, own, scatter.astype(np.float64))
