"""ZCA whitening of images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from methods.typing import FloatArray

EPSILON = 0.1


@dataclass(frozen=True)
class Whitening:
    """A fitted map: rows minus `mean` [D], times `matrix` [D, D]."""

    mean: FloatArray
    matrix: FloatArray

    def __call__(self, images: NDArray[np.floating]) -> NDArray[np.float32]:
        """Whiten images [N, ...] of D values each."""
        flat = images.reshape(len(images), -1)
        found = (flat - self.mean) @ self.matrix
        return np.asarray(found, dtype=np.float32).reshape(images.shape)


def fit(images: NDArray[np.floating], epsilon: float = EPSILON) -> Whitening:
    """Fit ZCA: the symmetric root of the inverse covariance (over N - 1) plus `epsilon`.

    Args:
        images: [N, ...], not normalised, values from 0 to 1.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    mean = flat.mean(axis=0)
    centred = flat - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / (len(flat) - 1))
    return Whitening(mean, (vectors / np.sqrt(np.maximum(values, 0) + epsilon)) @ vectors.T)
