"""Factors and scores as npz, dense or sparse."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from scipy import sparse

from methods.arrays.npz import loadz, savez
from methods.synthesize_text.gradients.factors import Factors, Target
from methods.typing import AnyArray, FloatArray

MEDIA_TYPE = "application/x-npz"


def _arrays(factors: Factors) -> dict[str, AnyArray]:
    found: dict[str, AnyArray] = {"h": factors.h, "rest": factors.rest}
    if sparse.issparse(factors.a):
        a = factors.a
        found |= {"data": a.data, "indices": a.indices, "indptr": a.indptr}
        return {**found, "shape": np.array(a.shape)}
    return {**found, "a": factors.a}


def _factors(arrays: dict[str, Any]) -> Factors:
    if "a" in arrays:
        return Factors(arrays["a"], arrays["h"], arrays["rest"])
    parts = (arrays["data"], arrays["indices"], arrays["indptr"])
    a = sparse.csr_matrix(parts, shape=tuple(arrays["shape"]))
    return Factors(a, arrays["h"], arrays["rest"])


def pack_target(target: Target) -> bytes:
    """A target's factors and weights."""
    return savez(**_arrays(target.factors), weights=target.weights)


def read_target(reader: BinaryIO) -> Target:
    """What `pack_target` wrote."""
    arrays = loadz(reader.read())
    return Target(_factors(arrays), arrays["weights"])


def pack_scores(factors: Factors, **columns: FloatArray) -> bytes:
    """Factors of texts, and what else is known of each."""
    return savez(**_arrays(factors), **columns)


def read_scores(reader: BinaryIO) -> tuple[Factors, dict[str, FloatArray]]:
    """What `pack_scores` wrote."""
    arrays = loadz(reader.read())
    own = {"a", "h", "rest", "data", "indices", "indptr", "shape"}
    return _factors(arrays), {name: value for name, value in arrays.items() if name not in own}
