"""What there is to see of a result: its headline and blocks, the same for all job types.

A newer service may send blocks, fields and formats that this client does not know: unknown blocks
are counted, unknown formats are written as text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import heappush, heappushpop
from itertools import count
from typing import Any, Protocol

from pydantic import BaseModel, Field, ValidationError

from datassay.models import ArtifactRef, MetricSeries, Wire

#: Items of a list of samples that a renderer shows.
MAX_SAMPLES = 500
#: Bytes of a picture that a renderer takes in.
MAX_IMAGE = 8 * 1024 * 1024
#: Characters of all samples together in a report.
MAX_SAMPLE_TEXT = 4_000_000


class Interval(Wire):
    """An estimate with its interval; anything may be unknown."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Headline(Wire):
    """One of the few figures that a job was run for."""

    key: str = ""
    label: str
    value: bool | int | float | str | None = None
    low: float | None = None
    high: float | None = None
    unit: str | None = None
    format: str = "number"
    better: str | None = None
    help: str = ""


class Column(Wire):
    """A column of a table."""

    key: str
    label: str
    unit: str | None = None
    format: str = "text"
    better: str | None = None
    help: str = ""


class Block(Wire):
    """One thing to show; the subclasses are the kinds."""

    kind: str


class Text(Block):
    """A paragraph, or with the kind `warning` what to know before trusting the result."""

    text: str


class Table(Block):
    """Rows of cells by the key of their column; a cell may be an interval."""

    title: str
    help: str = ""
    columns: list[Column]
    rows: list[dict[str, Any]]
    total: int = 0
    artifact: ArtifactRef | None = None
    sort: str | None = None


class Figure(Block):
    """A figure as a Vega-Lite specification."""

    kind: str = "figure"
    title: str = "Figure"
    caption: str | None = None
    vega_lite: dict[str, Any]
    span: int = 1
    square: bool = False


class Images(Block):
    """A picture among the artifacts."""

    title: str
    caption: str = ""
    artifact: ArtifactRef


class Samples(Block):
    """A list of items to look at."""

    title: str
    help: str = ""
    columns: list[Column]
    value_label: str = ""
    sort: str | None = None
    total: int
    samples: list[dict[str, Any]] | None = None
    artifact: ArtifactRef | None = None


_KINDS: Mapping[str, type[Block]] = {
    "text": Text,
    "warning": Text,
    "table": Table,
    "figure": Figure,
    "images": Images,
    "samples": Samples,
}


@dataclass(frozen=True, slots=True)
class Shown:
    """What there is to see of a result.

    Attributes:
        unknown: Number of blocks that this client cannot show.
    """

    title: str
    headline: list[Headline]
    blocks: list[Block]
    unknown: int = 0

    def of_kind(self, kind: str) -> list[Block]:
        """The blocks of a kind, in order."""
        return [block for block in self.blocks if block.kind == kind]


@dataclass(frozen=True, slots=True)
class Picked:
    """The samples of a block that a renderer shows, in order.

    Attributes:
        seen: number of samples that they were chosen from.
    """

    samples: list[dict[str, Any]]
    seen: int


@dataclass(frozen=True, slots=True)
class Content:
    """What a page shows beside the result: what blocks leave to artifacts, by the position of the
    block, and the job's figures over time."""

    samples: Mapping[int, Picked] = field(default_factory=dict)
    images: Mapping[int, bytes] = field(default_factory=dict)
    metrics: Sequence[MetricSeries] = ()


class Opener(Protocol):
    """Reads artifacts; either method may raise what reading raises."""

    def lines(self, artifact: ArtifactRef) -> Iterator[dict[str, Any]]: ...

    def content(self, artifact: ArtifactRef) -> bytes: ...


def load(
    blocks: Sequence[Block],
    opener: Opener,
    metrics: Sequence[MetricSeries] = (),
    most: int = MAX_SAMPLES,
) -> Content:
    """Read what the blocks leave to artifacts: samples and pictures, as far as they are shown."""
    samples, images = {}, {}
    for index, block in enumerate(blocks):
        if isinstance(block, Samples):
            found = block.samples or []
            lines = iter(found) if block.artifact is None else opener.lines(block.artifact)
            samples[index] = pick(block, lines, most)
        elif isinstance(block, Images) and block.artifact.size <= MAX_IMAGE:
            images[index] = opener.content(block.artifact)
    return Content(samples, images, metrics)


def shown(data: Mapping[str, Any], job_type: str) -> Shown:
    """The headline and the blocks of a result; of one before there were blocks, what it has."""
    unknown, blocks = 0, []
    for entry in _entries(data, "blocks"):
        kind = _KINDS.get(str(entry.get("kind"))) if isinstance(entry, dict) else None
        try:
            blocks.append(kind.model_validate(entry) if kind is not None else None)
        except ValidationError:
            blocks.append(None)
    known = [block for block in blocks if block is not None]
    unknown = len(blocks) - len(known)
    if not blocks:
        known = list(_before_blocks(data))
    title = data.get("title") or job_type.replace("-", " ").capitalize()
    headline = []
    for entry in _entries(data, "headline"):
        try:
            headline.append(Headline.model_validate(entry))
        except ValidationError:
            unknown += 1
    return Shown(str(title), headline, known, unknown)


def _entries(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name)
    return found if isinstance(found, list) else []


def _before_blocks(data: Mapping[str, Any]) -> Iterator[Block]:
    for text in _entries(data, "warnings"):
        yield Text(kind="warning", text=str(text))
    rows = [
        {"name": name, "value": value}
        for part in (data, data.get("summary"))
        if isinstance(part, Mapping)
        for name, value in part.items()
        if isinstance(value, str | int | float)
    ]
    if rows:
        columns = [Column(key="name", label="Field"), Column(key="value", label="Value")]
        yield Table(kind="table", title="Result", columns=columns, rows=rows, total=len(rows))
    for entry in _entries(data, "figures"):
        with suppress(ValidationError):
            yield Figure.model_validate(entry)


class _Text(BaseModel):
    text: str
    value: float | None = None


class _Group(BaseModel):
    label: str = ""
    texts: list[_Text] = Field(default_factory=list)


class _Mark(BaseModel):
    start: int
    end: int
    value: float = 0.0


class _Sample(BaseModel):
    """What renderers rely on."""

    id: str = ""
    prompt: str | None = None
    answer: str | None = None
    verdict: str | None = None
    values: dict[str, Any] = Field(default_factory=dict)
    groups: list[_Group] = Field(default_factory=list)
    marks: list[_Mark] = Field(default_factory=list)


class Picker:
    """Keeps the samples that come first in the order of a block, whatever their number."""

    def __init__(self, block: Samples, most: int = MAX_SAMPLES) -> None:
        key = block.sort or ""
        self._sign = -1.0 if key.startswith("-") else 1.0
        self._key = key.removeprefix("-")
        self._most = most
        self._heap: list[tuple[float, int, dict[str, Any]]] = []
        self._order = count(0, -1)
        self._seen = 0

    def add(self, sample: dict[str, Any]) -> None:
        """Take a sample into account; one without a figure comes last."""
        self._seen += 1
        values = sample.get("values")
        value = values.get(self._key) if isinstance(values, dict) else None
        rank = -self._sign * value if isinstance(value, int | float) else -math.inf
        # Of equal ones the earlier stays, so reports do not change from run to run.
        entry = (rank, next(self._order), sample)
        if len(self._heap) < self._most:
            heappush(self._heap, entry)
        else:
            heappushpop(self._heap, entry)

    def best(self) -> Picked:
        """The samples kept, in order, as far as their texts are not too much for a page."""
        chosen: list[dict[str, Any]] = []
        left = MAX_SAMPLE_TEXT
        for _, _, raw in sorted(self._heap, key=lambda entry: entry[:2], reverse=True):
            try:
                sample = _Sample.model_validate(raw).model_dump()
            except ValidationError:
                continue
            left -= _characters(sample)
            if left < 0 and chosen:
                break
            chosen.append(sample)
        return Picked(chosen, self._seen)


def pick(block: Samples, samples: Iterable[dict[str, Any]], most: int = MAX_SAMPLES) -> Picked:
    """The samples that come first; see `Picker`."""
    picker = Picker(block, most)
    for sample in samples:
        picker.add(sample)
    return picker.best()


def _characters(sample: Mapping[str, Any]) -> int:
    texts = [sample.get("prompt") or "", sample.get("answer") or ""]
    for group in sample.get("groups") or []:
        texts += [str(one.get("text", "")) for one in group.get("texts") or []]
    return sum(map(len, texts))
