"""Embeddings of texts: sentence-transformers weights, or an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from methods.errors import JobError
from methods.inference.declared import ModelDeclaration, Models

Floats = npt.NDArray[np.float64]

_CHUNK = 512


class Embedder(Protocol):
    """Texts to vectors."""

    def embed(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> Floats:
        """(N, d) unit vectors (a zero vector stays zero); equal texts are embedded once."""


def embedder(models: Models, name: str) -> Embedder:
    """The declared model of a name. Raises `JobError`."""
    source = models.find(name)
    if source.base_url is not None:
        return _Server(name, source)
    return models.load(name, load_embedder)


def load_embedder(source: ModelDeclaration) -> Embedder:
    """Load a sentence-transformers model."""
    from sentence_transformers import SentenceTransformer

    return _Weights(
        SentenceTransformer(source.path, revision=source.revision, trust_remote_code=False)
    )


class _Weights:
    def __init__(self, model: Any) -> None:
        self._model = model

    def embed(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> Floats:
        def encode(part: list[str]) -> Floats:
            return np.asarray(self._model.encode(part, show_progress_bar=False), np.float64)

        return _each_once(texts, encode, check)


class _Server:
    def __init__(self, name: str, source: ModelDeclaration) -> None:
        self._name, self._source = name, source

    def embed(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> Floats:
        return _each_once(texts, self._ask, check)

    def _ask(self, part: list[str]) -> Floats:
        import httpx2

        source = self._source
        assert source.base_url is not None, "a server has a URL"
        headers = {"Authorization": f"Bearer {source.api_key}"} if source.api_key else {}
        body = {"model": source.served_as or self._name, "input": part}
        try:
            answer = httpx2.post(
                f"{source.base_url.rstrip('/')}/embeddings",
                json=body,
                headers=headers,
                timeout=httpx2.Timeout(300, connect=5),
            )
        except httpx2.TransportError as error:
            text = f"The server of {self._name!r} does not answer ({type(error).__name__})."
            raise JobError("model_unavailable", text) from error
        if answer.status_code != 200:
            busy = answer.status_code >= 500 or answer.status_code in (408, 429)
            raise JobError(
                "model_unavailable" if busy else "model_rejected_request",
                f"The server of {self._name!r} answers {answer.status_code}: {answer.text[:500]}.",
            )
        try:
            rows = sorted(answer.json()["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float64)
            if vectors.shape[0] != len(part) or not np.isfinite(vectors).all():
                raise ValueError(f"{vectors.shape[0]} finite vectors for {len(part)} texts")
        except (KeyError, TypeError, ValueError) as error:
            text = f"The server of {self._name!r} does not speak the OpenAI protocol: {error!r}"
            raise JobError("model_rejected_request", text[:500]) from error
        return vectors


def _each_once(
    texts: Sequence[str], encode: Callable[[list[str]], Floats], check: Callable[[], None]
) -> Floats:
    rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    parts = []
    ordered = sorted(rows, key=len)
    for start in range(0, len(ordered), _CHUNK):
        check()
        part = ordered[start : start + _CHUNK]
        parts.append((part, encode(part)))
    unit = np.zeros((len(rows), parts[0][1].shape[1] if parts else 0))
    for part, vectors in parts:
        unit[[rows[text] for text in part]] = vectors
    norm = np.linalg.norm(unit, axis=1, keepdims=True)
    np.divide(unit, norm, out=unit, where=norm > 0)
    return unit[[rows[text] for text in texts]]
