"""Embeddings of texts: sentence-transformers weights, or an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from methods.inference.model_registry import ModelDeclaration, Models
from methods.typing import FloatArray

if TYPE_CHECKING:
    import httpx2


#: Texts that are encoded together; of a server, which has many requests in flight.
_CHUNK, _CHUNK_OF_SERVER = 512, 64


class Embedder(Protocol):
    """Texts to vectors."""

    def embed(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> FloatArray:
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

    def embed(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> FloatArray:
        def encode(parts: list[list[str]]) -> Iterator[FloatArray]:
            for part in parts:
                check()
                yield np.asarray(self._model.encode(part, show_progress_bar=False), np.float64)

        return _each_once(texts, encode)


class _Server:
    def __init__(self, name: str, source: ModelDeclaration) -> None:
        from methods.inference.openai_http import Server

        self._server = Server(name, source)

    def embed(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> FloatArray:
        def encode(parts: list[list[str]]) -> Iterator[FloatArray]:
            model = self._server.model
            requests = (
                (k, "/embeddings", {"model": model, "input": part}) for k, part in enumerate(parts)
            )
            found: dict[int, FloatArray] = {}
            for k, answer in self._server.ask(requests, check):
                found[k] = self._read(answer, parts[k])
            if len({vectors.shape[1] for vectors in found.values()}) > 1:
                raise self._server.strange("vectors of different lengths")
            return (found[k] for k in range(len(parts)))

        return _each_once(texts, encode, _CHUNK_OF_SERVER)

    def _read(self, answer: httpx2.Response, part: list[str]) -> FloatArray:
        try:
            rows = sorted(answer.json()["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float64)
            if vectors.ndim != 2 or len(vectors) != len(part) or not np.isfinite(vectors).all():
                raise ValueError(f"not {len(part)} finite vectors but {vectors.shape}")
        except (KeyError, TypeError, ValueError) as error:
            raise self._server.strange(repr(error)) from error
        return vectors


def _each_once(
    texts: Sequence[str],
    encode: Callable[[list[list[str]]], Iterator[FloatArray]],
    size: int = _CHUNK,
) -> FloatArray:
    """`encode` gets the different texts in parts, shortest first, and gives the rows of each."""
    ordered = sorted(dict.fromkeys(texts), key=len)
    parts = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    found = list(encode(parts))
    unit = np.concatenate(found) if found else np.zeros((0, 0))
    norm = np.linalg.norm(unit, axis=1, keepdims=True)
    np.divide(unit, norm, out=unit, where=norm > 0)
    rows = {text: row for row, text in enumerate(ordered)}
    return unit[[rows[text] for text in texts]]
