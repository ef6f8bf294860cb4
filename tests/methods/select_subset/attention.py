"""Singular values of the attention from text to image, from tensors that a model gave."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from methods.typing import BoolArray, FloatArray


def official_attention(
    query: npt.ArrayLike,
    key: npt.ArrayLike,
    valid: npt.ArrayLike | None = None,
    rows: npt.ArrayLike | None = None,
) -> FloatArray:
    """The matrix that the official XMAS code calls attention, of one layer and example.

    `softmax(K Q^T / sqrt(D))` over all tokens, from the raw projections: no causal mask, no
    rotary positions, no heads. Queries and keys are swapped against what the paper says: the
    official function is declared with the key first and called with the query first. A narrower
    key (grouped queries) is widened by repeating columns.

    Args:
        query: (L, D). key: (L, D) or (L, D / g).
        valid: (L,) True for real tokens. Pad columns get no weight, pad rows are 0; None takes
            pads for tokens, as the official code does, so that the value of an example depends on
            the padding of its batch.
        rows: (R,) token positions; only these rows are computed.

    Returns:
        (R or L, L), each row of a real token adding up to 1.
    """
    q, k = np.asarray(query, dtype=np.float64), np.asarray(key, dtype=np.float64)
    if q.shape[1] != k.shape[1]:
        k = np.repeat(k, q.shape[1] // k.shape[1], axis=1)
    places = np.arange(len(q)) if rows is None else np.asarray(rows)
    scores = k[places] @ q.T / np.sqrt(q.shape[1])
    real = np.ones(len(q), dtype=np.bool_) if valid is None else np.asarray(valid, dtype=np.bool_)
    scores[:, ~real] = -np.inf
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    scores[~real[places]] = 0
    return np.asarray(scores, dtype=np.float64)


class CrossAttention:
    """Adds up the text-to-image block of the attention, layer by layer.

    Only the blocks are kept, never the heads and layers at once. Rows and columns of an example
    that has fewer tokens than the largest are 0, which leaves its singular values as they are.

    Args:
        text: (B, L) True at text tokens whose rows count. image: (B, L) True at image tokens; of
            several images all columns count.
        valid: (B, L) True at real tokens; None: all. Text and image are cut down to it.

    Attributes:
        blocks: (B, R, C), the sum so far.
    """

    def __init__(
        self, text: npt.ArrayLike, image: npt.ArrayLike, valid: npt.ArrayLike | None = None
    ) -> None:
        rows, columns = np.asarray(text, dtype=np.bool_), np.asarray(image, dtype=np.bool_)
        self._valid: BoolArray | None = None
        if valid is not None:
            self._valid = np.asarray(valid, dtype=np.bool_)
            rows, columns = rows & self._valid, columns & self._valid
        self._rows = [np.flatnonzero(row) for row in rows]
        self._columns = [np.flatnonzero(column) for column in columns]
        self.blocks: FloatArray = np.zeros(
            (len(rows), int(rows.sum(1).max(initial=0)), int(columns.sum(1).max(initial=0)))
        )

    def add_model(self, attention: npt.ArrayLike) -> None:
        """Add a layer of the model's own attention: (B, H, L, L) probabilities, averaged over
        heads. The model has masked and positioned it already."""
        layer = np.asarray(attention)
        for example, (rows, columns) in enumerate(zip(self._rows, self._columns, strict=True)):
            block = layer[example][:, rows[:, None], columns].mean(axis=0, dtype=np.float64)
            self.blocks[example, : len(rows), : len(columns)] += block

    def add_official(self, query: npt.ArrayLike, key: npt.ArrayLike) -> None:
        """Add a layer of `official_attention` from projections (B, L, D); pads are masked where
        `valid` was given."""
        q, k = np.asarray(query), np.asarray(key)
        for example, (rows, columns) in enumerate(zip(self._rows, self._columns, strict=True)):
            valid = None if self._valid is None else self._valid[example]
            block = official_attention(q[example], k[example], valid, rows)[:, columns]
            self.blocks[example, : len(rows), : len(columns)] += block


def top_singular_values(blocks: npt.ArrayLike, k: int = 5) -> FloatArray:
    """The k largest singular values of each matrix, largest first.

    They are roots of eigenvalues of the smaller Gram matrix in float64, whose error is below
    1e-15 s1^2 / s: next to nothing for the largest, and at worst 3e-8 s1.

    Args:
        blocks: (B, R, C). k: values; where a matrix has fewer, 0 fills up.

    Returns:
        (B, k), 0 or more.
    """
    a = np.asarray(blocks, dtype=np.float64)
    found = np.zeros((len(a), k), dtype=np.float64)
    if 0 in a.shape:
        return found
    flat = a.transpose(0, 2, 1) if a.shape[1] > a.shape[2] else a
    eigenvalues = np.linalg.eigvalsh(flat @ flat.transpose(0, 2, 1))[:, ::-1][:, :k]
    found[:, : eigenvalues.shape[1]] = np.sqrt(np.maximum(eigenvalues, 0))
    return found


def lowrank_singular_values(
    blocks: Iterable[npt.ArrayLike], k: int, rng: np.random.Generator, power: int = 2
) -> FloatArray:
    """The official estimate: randomised range finding with k columns and no oversampling.

    It lies below the exact values, more so for the smaller ones (up to 16 % in the fifth), and
    depends on the generator; it is here for comparison with official runs.

    Args:
        blocks: matrices (R, C). power: power iterations, 2 officially.

    Returns:
        (B, k). Source: arXiv:0909.4061, algorithm 4.4.
    """
    found = []
    for block in blocks:
        a = np.asarray(block, dtype=np.float64)
        basis = np.linalg.qr(a @ rng.standard_normal((a.shape[1], k)))[0]
        for _ in range(power):
            basis = np.linalg.qr(a @ np.linalg.qr(a.T @ basis)[0])[0]
        found.append(np.linalg.svd(basis.T @ a, compute_uv=False)[:k])
    return np.array(found, dtype=np.float64).reshape(-1, k)
