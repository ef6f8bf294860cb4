"""What the results of all job types have in common: a headline and blocks for people, intervals,
artifacts, provenance.

The gateway reads these classes for its API document: nothing here imports numerics. A method says
what there is to see as blocks; the report, the terminal and notebooks draw them without knowing
the method.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from methods.jobtype import SpecModel

if TYPE_CHECKING:
    from methods.jobtype import JobType

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
#: Rows of a table in the result itself; the result or an artifact holds the others.
MAX_ROWS = 200
#: Bytes of a headline: it is copied into the job's row, and lists of jobs show it.
MAX_HEADLINE_BYTES = 4096
#: Bytes of samples in the result itself; more are an artifact.
MAX_INLINE_SAMPLES = 64 * 1024

#: Colours that mean the same in every figure, readable on a light and on a dark page.
RIGHT, WRONG, NEUTRAL, EMPHASIS = "#2a9d6b", "#d1495b", "#8a8f98", "#d9772b"

Format = Literal["text", "number", "integer", "percent", "bytes", "seconds"]
Better = Literal["high", "low"]


def _cut_to(length: int) -> Callable[[Any], Any]:
    """Names come from users and may be long; a result must not fail for that."""

    def cut(value: Any) -> Any:
        too_long = isinstance(value, str) and len(value) > length
        return f"{value[: length - 1]}…" if too_long else value

    return cut


class Interval(SpecModel):
    """An estimate with its interval: 95 %, unless the text beside it says otherwise. Null where it
    is undefined."""

    value: float | None = Field(description="The estimate itself.")
    low: float | None = Field(description="Lower end of the interval.")
    high: float | None = Field(description="Upper end of the interval.")


class ArtifactRef(SpecModel):
    """A file that the job produced; its id can be the input of another job."""

    id: str = Field(description="Id of the artifact (`art_...`).")
    name: str = Field(description="File name.")
    media_type: str = Field(description="MIME type of the content.")
    size: int = Field(description="Length in bytes.")
    sha256: str = Field(description="SHA-256 of the content, in hexadecimal.")


class Headline(SpecModel):
    """One of the few figures that a job was run for."""

    key: str = Field(
        pattern="^[a-z][a-z0-9_]{0,39}$",
        description="Name for filters and sorting, the same in every result of the job type.",
    )
    label: Annotated[str, BeforeValidator(_cut_to(120))] = Field(
        description="What the figure is, for people."
    )
    value: int | float | Annotated[str, BeforeValidator(_cut_to(200))] | None = Field(
        description="The figure; null where it is undefined."
    )
    low: float | None = Field(None, description="Lower end of its interval.")
    high: float | None = Field(None, description="Upper end of its interval.")
    unit: str | None = Field(None, max_length=40, description="Unit of the figure.")
    format: Format = Field("number", description="How to write the figure.")
    better: Better | None = Field(None, description="Which direction is good, if one is.")
    help: str = Field("", max_length=400, description="How to read the figure.")


class Column(SpecModel):
    """A column of a table."""

    key: str = Field(description="Name of the cell in each row.")
    label: str = Field(description="Heading of the column.")
    unit: str | None = Field(None, description="Unit of its figures.")
    format: Format = Field("text", description="How to write its cells.")
    better: Better | None = Field(None, description="Which direction is good, if one is.")
    help: str = Field("", description="How to read the column.")


Cell = bool | int | float | str | Interval | None


class TextBlock(SpecModel):
    """A paragraph."""

    kind: Literal["text"] = Field("text", description="Always `text`.")
    text: str = Field(description="Plain text.")


class WarningBlock(SpecModel):
    """What a reader must know before trusting the result."""

    kind: Literal["warning"] = Field("warning", description="Always `warning`.")
    text: str = Field(description="Plain text.")


class TableBlock(SpecModel):
    """Rows of figures and names."""

    kind: Literal["table"] = Field("table", description="Always `table`.")
    title: str = Field(description="A few words, shown above the table.")
    help: str = Field("", description="How to read the table.")
    columns: list[Column] = Field(min_length=1, description="The columns, left to right.")
    rows: list[dict[str, Cell]] = Field(
        max_length=MAX_ROWS, description="Cells by the key of their column."
    )
    total: int = Field(description="Number of rows; `rows` has the first of them.")
    artifact: ArtifactRef | None = Field(
        None, description="File with all rows, where `rows` has not all of them."
    )
    sort: str | None = Field(
        None, description="Key of the column that the rows are ordered by; `-key`: descending."
    )


class Figure(SpecModel):
    """A figure that any Vega-Lite renderer draws as it stands."""

    title: str = Field(description="A few words, shown above the figure.")
    caption: str = Field("", description="What the figure shows and how to read it.")
    vega_lite: dict[str, Any] = Field(description="A Vega-Lite specification with inline data.")


class FigureBlock(Figure):
    """A figure with its place on a page."""

    kind: Literal["figure"] = Field("figure", description="Always `figure`.")
    span: Literal[1, 2] = Field(1, description="Columns that it takes on a wide page.")
    square: bool = Field(False, description="Both axes have one scale: draw it as high as wide.")


class ImagesBlock(SpecModel):
    """A picture among the artifacts."""

    kind: Literal["images"] = Field("images", description="Always `images`.")
    title: str = Field(description="A few words, shown above the picture; also its alternative.")
    caption: str = Field("", description="What the picture shows.")
    artifact: ArtifactRef = Field(description="A PNG or JPEG file.")


class SampleText(SpecModel):
    """One answer of a sample."""

    text: str = Field(description="The answer in full.")
    value: float | None = Field(None, description="Its figure; the block says which one.")


class SampleGroup(SpecModel):
    """Answers of a sample that belong together, such as those with one meaning."""

    label: str = Field(description="What they have in common.")
    texts: list[SampleText] = Field(description="The answers.")


class SampleMark(SpecModel):
    """A part of the judged answer that stands out."""

    start: int = Field(ge=0, description="Where it begins in `answer`, in characters from 0.")
    end: int = Field(ge=0, description="Where it ends.")
    value: float = Field(ge=0, le=1, description="How much it stands out, 1 the most.")


class Sample(SpecModel):
    """One item that a reader may want to look at."""

    id: str = Field(description="Name of the item.")
    prompt: str | None = Field(None, description="What was asked, in full.")
    answer: str | None = Field(None, description="The answer that is judged, in full.")
    verdict: Literal["right", "wrong"] | None = Field(None, description="Its label, if known.")
    marks: list[SampleMark] = Field(
        default_factory=list, description="Parts of the answer that stand out, in their order."
    )
    values: dict[str, float | int | str | None] = Field(
        description="Figures of the item, by the keys of the block's columns."
    )
    groups: list[SampleGroup] = Field(
        default_factory=list, description="All answers, the largest group first."
    )


class SamplesBlock(SpecModel):
    """A searchable list of items."""

    kind: Literal["samples"] = Field("samples", description="Always `samples`.")
    title: str = Field(description="A few words, shown above the list.")
    help: str = Field("", description="How to read the list.")
    columns: list[Column] = Field(description="The figures of each item.")
    value_label: str = Field("", description="What the figure beside each answer is.")
    sort: str | None = Field(
        None, description="Key of the column to order the items by; `-key`: descending."
    )
    total: int = Field(description="Number of items.")
    samples: list[Sample] | None = Field(
        None, description="The items in the order of the input; null where they are an artifact."
    )
    artifact: ArtifactRef | None = Field(
        None, description="JSON lines, one `Sample` each, in the order of the input."
    )


Block = Annotated[
    TextBlock | WarningBlock | TableBlock | FigureBlock | ImagesBlock | SamplesBlock,
    Field(discriminator="kind"),
]


class Provenance(SpecModel):
    """What a result rests on: enough to compute it again."""

    method: str = Field(description="Job type and its version, as `select-subset/1`.")
    seed: int = Field(description="The seed that all randomness came from.")
    versions: dict[str, str] = Field(
        description="Versions of the packages that the numbers depend on."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="What was decided beyond the packages: defaults in force, devices, messages to "
        "judges.",
    )

    @classmethod
    def of(cls, job_type: JobType, seed: int, *packages: str, **settings: Any) -> Provenance:
        """The provenance of a result of this job type.

        Args:
            packages: distributions beside numpy and scipy that the numbers depend on.
            settings: see the field of this name.
        """
        return cls(
            method=f"{job_type.name}/{job_type.version}",
            seed=seed,
            versions={name: version(name) for name in ("numpy", "scipy", *packages)},
            settings=settings,
        )


class JobResult(SpecModel):
    """The result of a job type: what to show of it, and what it rests on.

    A method adds its own fields, fills them, and calls `shown` last.
    """

    title: Annotated[str, BeforeValidator(_cut_to(200))] = Field(
        "", description="What the result is, for people."
    )
    headline: list[Headline] = Field(
        default_factory=list,
        max_length=6,
        description="The figures that the job was run for; lists of jobs show them too.",
    )
    warnings: list[str] = Field(
        default_factory=list, description="What to know before trusting the result."
    )
    provenance: Provenance = Field(
        description="What the result rests on: enough to compute it again."
    )
    blocks: list[Block] = Field(
        default_factory=list,
        description="What to show of the result, in order: any renderer can draw it.",
    )
    figures: list[Figure] = Field(
        default_factory=list,
        description="The figures of `blocks` once more, for clients before 0.2; use `blocks`.",
        json_schema_extra={"deprecated": True},
    )

    @model_validator(mode="after")
    def _is_presentable(self) -> Self:
        self._check()
        return self

    def _check(self) -> None:
        size = len(json.dumps([one.model_dump() for one in self.headline]).encode())
        if size > MAX_HEADLINE_BYTES:
            raise ValueError(f"headline: {size} bytes; the limit is {MAX_HEADLINE_BYTES}")
        for name, keys in (
            ("headline", [one.key for one in self.headline]),
            *(
                (block.title, [column.key for column in block.columns])
                for block in self.blocks
                if isinstance(block, TableBlock | SamplesBlock)
            ),
        ):
            if len(set(keys)) != len(keys):
                raise ValueError(f"{name}: a key occurs twice")
        shown = {block.text for block in self.blocks if isinstance(block, WarningBlock)}
        if self.blocks and (hidden := [text for text in self.warnings if text not in shown]):
            raise ValueError(f"warnings that no block shows: {hidden}")

    def shown(self, title: str, headline: Sequence[Headline], blocks: Iterable[Block]) -> Self:
        """This result with what there is to see of it; warnings come first by themselves.

        Args:
            title: what the result is.
            headline: 1 to 6 figures.
            blocks: in the order of a page.
        """
        self.title = _cut_to(200)(title)
        self.headline = list(headline)
        self.blocks = [*(WarningBlock(text=text) for text in self.warnings), *blocks]
        self.figures = [
            Figure(title=block.title, caption=block.caption, vega_lite=block.vega_lite)
            for block in self.blocks
            if isinstance(block, FigureBlock)
        ]
        self._check()
        return self


def table(
    title: str,
    columns: list[Column],
    rows: Sequence[BaseModel | Mapping[str, Any]],
    *,
    help: str = "",  # noqa: A002 - the field's name
    sort: str | None = None,
    artifact: ArtifactRef | None = None,
    total: int | None = None,
) -> TableBlock:
    """A table of models or mappings, whose fields the columns name; the first rows of many.

    Args:
        total: number of rows, where `rows` are not all.
    """
    return TableBlock(
        title=title,
        help=help,
        columns=columns,
        rows=[{one.key: _cell(row, one.key) for one in columns} for row in rows[:MAX_ROWS]],
        total=len(rows) if total is None else total,
        artifact=artifact,
        sort=sort,
    )


def _cell(row: BaseModel | Mapping[str, Any], key: str) -> Cell:
    value = row.get(key) if isinstance(row, Mapping) else getattr(row, key)
    if isinstance(value, Interval):
        return Interval(value=value.value, low=value.low, high=value.high)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(one) for one in value)
    cell: Cell = value
    return cell


def counted(number: int, thing: str, plural: str | None = None) -> str:
    """A number with what it counts, such as `1 item` or `2,000 items`."""
    return f"{number:,} {thing if number == 1 else plural or f'{thing}s'}"


def some_of(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def first_of(shown: int, total: int, things: str, which: str) -> str:
    """What a caption says of things that are not drawn; empty where all are."""
    return "" if shown >= total else f" Drawn: {shown:,} of {total:,} {things} ({which})."


def interval(value: float | None, ends: tuple[float, float] | None) -> Interval:
    """An estimate with the ends of its interval, where there is one."""
    low, high = ends or (None, None)
    return Interval(value=value, low=low, high=high)


def chart(rows: list[dict[str, Any]], **specification: Any) -> dict[str, Any]:
    """A Vega-Lite specification over rows; width follows the page."""
    return {
        "$schema": SCHEMA,
        "data": {"values": rows},
        "width": "container",
        "height": 260,
        **specification,
    }


def axis(field: str, title: str, kind: str = "quantitative", **scale: Any) -> dict[str, Any]:
    """An encoding channel with its title, and its scale where one is given."""
    encoding: dict[str, Any] = {"field": field, "type": kind, "title": title}
    return {**encoding, "scale": scale} if scale else encoding


def colour_by(field: str, colours: Mapping[str, str]) -> dict[str, Any]:
    """The colour channel of a field whose values have colours of their own, in this order."""
    scale = {"domain": list(colours), "range": list(colours.values())}
    return {"field": field, "type": "nominal", "title": None, "scale": scale}
