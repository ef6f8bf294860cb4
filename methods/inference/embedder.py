"""Embeddings of texts: sentence-transformers weights, or an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from methods.inference.model_registry import ModelDeclaration, Models
from methods.typing import FloatArray

if TYPE_CHECKING:
    import httpx2


#: Texts that are encoded together; of a server, which has many requests in flight.
_CHUNK, _CHUNK_OF_SERVER = 512, 64
#: A text of fewer characters is refused for something else than its length.
_SHORTEST = 64


class Embedder(Protocol):
    """Texts to vectors."""

    def embed(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> FloatArray:
        """(N, d) unit vectors (a zero vector stays zero); equal texts are embedded once.

        A text that the model cannot read at once has the mean of those of its windows.
        """

    def is_long(self, text: str) -> bool:
        """Whether a text is read in windows."""


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
        limit = getattr(model, "max_seq_length", None)
        self._room: int | None = None
        if limit is not None and getattr(model.tokenizer, "is_fast", False):
            self._room = max(1, limit - model.tokenizer.num_special_tokens_to_add())
            # A copy without the settings of the model's own, which cuts.
            self._backend = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
            self._backend.no_truncation()
            self._backend.no_padding()

    def is_long(self, text: str) -> bool:
        return len(self._windows(text)) > 1

    def _windows(self, text: str) -> list[str]:
        if self._room is None or len(text) <= self._room:
            return [text]
        tokens = self._backend.encode(text, add_special_tokens=False)
        ends = range(self._room, len(tokens.ids), self._room)
        starts = [0, *(tokens.offsets[at][0] for at in ends)]
        return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]

    def embed(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> FloatArray:
        def encode(parts: list[list[str]]) -> Iterator[FloatArray]:
            for part in parts:
                check()
                windows = [self._windows(text) for text in part]
                flat = [one for own in windows for one in own]
                rows = np.asarray(self._model.encode(flat, show_progress_bar=False), np.float64)
                yield _means(rows, [len(own) for own in windows])

        return _each_once(texts, encode)


class _Server:
    def __init__(self, name: str, source: ModelDeclaration) -> None:
        from methods.inference.openai_http import Server

        self._server = Server(name, source)
        self._long: set[str] = set()

    def is_long(self, text: str) -> bool:
        return text in self._long

    def embed(self, texts: Sequence[str], check: Callable[[], None] = lambda: None) -> FloatArray:
        def encode(parts: list[list[str]]) -> Iterator[FloatArray]:
            model = self._server.model
            requests = (
                (k, "/embeddings", {"model": model, "input": part}) for k, part in enumerate(parts)
            )
            found: dict[int, FloatArray] = {}
            refused: dict[int, httpx2.Response] = {}
            for k, answer in self._server.ask(requests, check, keep_refused=True):
                if answer.status_code == 200:
                    found[k] = self._read(answer, parts[k])
                else:
                    refused[k] = answer
            for k, answer in refused.items():
                found[k] = self._in_halves(parts[k], answer, check)
            if len({vectors.shape[1] for vectors in found.values()}) > 1:
                raise self._server.strange("vectors of different lengths")
            return (found[k] for k in range(len(parts)))

        return _each_once(texts, encode, _CHUNK_OF_SERVER)

    def _in_halves(
        self, part: list[str], answer: httpx2.Response, check: Callable[[], None]
    ) -> FloatArray:
        """Of texts that were refused together: one by one, and a text that is refused in halves."""
        if len(part) > 1:
            return np.stack([self._raw([text], check)[0] for text in part])
        if len(part[0]) < _SHORTEST or answer.status_code not in (400, 413, 422):
            raise self._server.rejected(answer)
        self._long.add(part[0])
        middle = part[0].rfind(" ", 0, len(part[0]) // 2 + 1) + 1 or len(part[0]) // 2
        halves = [part[0][:middle], part[0][middle:]]
        return _means(np.concatenate([self._raw([half], check) for half in halves]), [2])

    def _raw(self, part: list[str], check: Callable[[], None]) -> FloatArray:
        body = {"model": self._server.model, "input": part}
        [(_, answer)] = self._server.ask([(0, "/embeddings", body)], check, keep_refused=True)
        if answer.status_code == 200:
            return self._read(answer, part)
        return self._in_halves(part, answer, check)

    def _read(self, answer: httpx2.Response, part: list[str]) -> FloatArray:
        try:
            rows = sorted(answer.json()["data"], key=lambda row: row["index"])
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float64)
            if vectors.ndim != 2 or len(vectors) != len(part) or not np.isfinite(vectors).all():
                raise ValueError(f"not {len(part)} finite vectors but {vectors.shape}")
        except (KeyError, TypeError, ValueError) as error:
            raise self._server.strange(repr(error)) from error
        return vectors


def _means(rows: FloatArray, counts: Sequence[int]) -> FloatArray:
    """The mean of the unit vectors of each text's windows."""
    if len(rows) == len(counts):
        return rows
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0)
    starts = np.cumsum([0, *counts[:-1]])
    return np.asarray(np.add.reduceat(unit, starts, axis=0) / np.array(counts)[:, None])


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
