"""Features of a job: read, stacked over checkpoints, matched with the rows, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt

from methods.context import RunContext
from methods.errors import JobError
from methods.select_subset.data.feature_files import Table, read_table
from methods.select_subset.data.row_files import clean
from methods.select_subset.data.unpacked import unpacked
from methods.select_subset.result import BadRow
from methods.select_subset.schema.inputs import AXES, Feature
from methods.select_subset.spec import Spec
from methods.typing import AnyArray, IntArray

_NAMED = 20
#: Kinds that are directions, in which zeros say nothing.
_VECTORS = frozenset({"embedding", "image_embedding", "text_embedding", "gradient"})
#: Squares of it are finite in float32, and their sums.
_LARGEST = 1e16


@dataclass
class Features:
    """All features of a job, in the order of the rows.

    Attributes:
        values: for each kind (N, ...); rows of `missing` hold anything.
        present: (N,) rows that have every feature.
        bad: rows with values that are not finite.
        target: the target gradients with the task of each, where given.
        warnings: what was noticed.
    """

    values: dict[str, AnyArray]
    present: npt.NDArray[np.bool_]
    bad: list[BadRow]
    target: tuple[AnyArray, list[str]] | None = None
    warnings: list[str] = field(default_factory=list)


def load_feature(feature: Feature, ctx: RunContext) -> Table:
    """Read a feature and check its shape.

    Raises:
        JobError: as `read_table`; `input_invalid` for a wrong number of axes, for repeated ids,
            and for checkpoints with different rows, naming the ids.
    """
    if feature.values is not None:
        try:
            values = np.array(feature.values, dtype=np.float64)
        except ValueError as error:
            raise JobError(
                "input_invalid", f"Feature {feature.kind}: rows differ in length."
            ) from error
        ids = None if feature.ids is None else [clean(str(i)) for i in feature.ids]
        table = Table(values, ids, feature.tasks)
    else:
        refs = feature.inputs or [ref for ref in (feature.input,) if ref is not None]
        tables = []
        for number, ref in enumerate(refs):
            ctx.progress("reading features", number, len(refs), "files")
            what = f"Feature {feature.kind} ({ref})"
            with unpacked(partial(ctx.open_input, ref), ctx, what)() as reader:
                tables.append(read_table(reader, feature, what))
        table = tables[0] if feature.inputs is None else _stack(tables, feature)
        table.tasks = feature.tasks or table.tasks
    _check_shape(table, feature)
    return table


def _stack(tables: list[Table], feature: Feature) -> Table:
    """One array from one file a checkpoint: rows are matched by id, the first file's order wins."""
    first = tables[0]
    parts = [first.values]
    for number, table in enumerate(tables[1:], start=1):
        if table.values.shape[1:] != first.values.shape[1:]:
            raise JobError(
                "input_invalid",
                f"Feature {feature.kind}: checkpoint {number} has shape {table.values.shape}, "
                f"checkpoint 0 has {first.values.shape}.",
            )
        if (table.ids is None) != (first.ids is None) or (
            table.ids is None and len(table.values) != len(first.values)
        ):
            raise JobError(
                "input_invalid",
                f"Feature {feature.kind}: checkpoints 0 and {number} differ in number of rows, or "
                "one has no ids.",
            )
        parts.append(_matched(table, first, f"Feature {feature.kind}", number))
    return Table(np.stack(parts, axis=1), first.ids, first.tasks)


def _matched(table: Table, first: Table, what: str, number: int) -> AnyArray:
    if table.ids is None or table.ids == first.ids:
        return table.values
    assert first.ids is not None, "either all checkpoints have ids or none"
    place = {identity: row for row, identity in enumerate(table.ids)}
    absent = [i for i in first.ids if i not in place]
    known = set(first.ids)
    extra = [i for i in table.ids if i not in known]
    if absent or extra:
        raise JobError(
            "input_invalid",
            f"{what}: checkpoint {number} has other rows than checkpoint 0: {len(absent)} missing "
            f"({_some(absent)}), {len(extra)} more ({_some(extra)}).",
            details={"missing": absent[:_NAMED], "extra": extra[:_NAMED]},
        )
    return table.values[[place[i] for i in first.ids]]


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "") if ids else "none"


def _check_shape(table: Table, feature: Feature) -> None:
    values = table.values
    what = f"Feature {feature.kind}"
    if values.dtype.kind not in "fiub":
        raise JobError("input_invalid", f"{what} holds {values.dtype}, not numbers.")
    # A column of one value each is a score, whatever file it came from.
    if feature.kind == "score" and values.ndim == 2 and values.shape[1] == 1:
        table.values = values = values[:, 0]
    if values.ndim not in AXES[feature.kind] or 0 in values.shape:
        axes = " or ".join(str(n) for n in AXES[feature.kind])
        raise JobError("input_invalid", f"{what} has shape {values.shape}, expected {axes} axes.")
    for name, texts in (("ids", table.ids), ("tasks", table.tasks)):
        if texts is not None and len(texts) != len(values):
            raise JobError(
                "input_invalid", f"{what} has {len(values)} rows but {len(texts)} {name}."
            )
    if table.ids is not None and len(set(table.ids)) < len(table.ids):
        seen: set[str] = set()
        twice = [i for i in table.ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
        raise JobError(
            "input_invalid",
            f"{what}: {len(twice)} ids occur more than once, e.g. {_some(twice)}.",
            details={"ids": twice[:_NAMED]},
        )


def match(spec: Spec, tables: dict[str, Table], ids: list[str] | None, count: int) -> Features:
    """Put all features in the order of the rows.

    Args:
        tables: from `load_feature`, by kind. ids: of the rows; None: the row numbers.
        count: number of rows.

    Raises:
        JobError: `input_invalid` when features without ids are not as many as the rows, or when
            gradients and target gradients do not fit together.
    """
    found = Features({}, np.ones(count, dtype=np.bool_), [])
    for kind, table in tables.items():
        if kind == "target_gradient":
            found.target = _target(table, tables["gradient"])
            continue
        places = _places(kind, table, ids, count, found.warnings)
        if places is None:
            found.values[kind] = table.values
        else:
            found.present &= places >= 0
            found.values[kind] = table.values[places]
    infinite_ok = spec.method == "forgetting"
    for kind, values in found.values.items():
        found.bad += _not_finite(kind, values, found.present, infinite_ok, ids)
        found.bad += _meaningless(kind, values, found.present, ids)
    _check_pair(found.values)
    return found


def _check_pair(values: dict[str, AnyArray]) -> None:
    image, text = values.get("image_embedding"), values.get("text_embedding")
    if image is not None and text is not None and image.shape[1] != text.shape[1]:
        raise JobError(
            "input_invalid",
            f"Features image_embedding and text_embedding have shapes {image.shape} and "
            f"{text.shape}: their cosine needs equally long vectors, of one model.",
        )


def _meaningless(
    kind: str, values: AnyArray, present: npt.NDArray[np.bool_], ids: list[str] | None
) -> list[BadRow]:
    """Vectors that say nothing: all zeros, as an encoder that failed leaves them."""
    if kind not in _VECTORS:
        return []
    empty = np.asarray(~values.reshape(len(values), -1).any(axis=1))
    return _rows_with(empty, kind, "is all zeros, as a failed encoder leaves it", present, ids)


def _places(
    kind: str, table: Table, ids: list[str] | None, count: int, warnings: list[str]
) -> IntArray | None:
    """For each row its place in the table, -1 for none; None where they agree as they are."""
    if table.ids is None:
        if len(table.values) != count:
            raise JobError(
                "input_invalid",
                f"Feature {kind} has {len(table.values)} rows and no ids, the data has {count}.",
            )
        return None
    if table.ids == ids:
        return None
    place = {identity: row for row, identity in enumerate(table.ids)}
    names = ids if ids is not None else [str(row) for row in range(count)]
    places = np.array([place.get(identity, -1) for identity in names], dtype=np.int64)
    if table.ids and names and not (places >= 0).any():
        raise JobError(
            "input_invalid",
            f"No id of feature {kind} is the id of a row: the feature has {table.ids[0]!r}, the "
            f"rows have {names[0]!r}. Name the fields by id_field, or leave the ids out of the "
            "feature where both are in the same order.",
            details={"feature": table.ids[:_NAMED], "rows": names[:_NAMED]},
        )
    unused = len(table.ids) - int((places >= 0).sum())
    if unused:
        warnings.append(f"{unused} rows of feature {kind} have an id that no row has.")
    return places


def _not_finite(
    kind: str,
    values: AnyArray,
    present: npt.NDArray[np.bool_],
    infinite_ok: bool,
    ids: list[str] | None,
) -> list[BadRow]:
    bad = np.isnan(values) if infinite_ok else ~np.isfinite(values)
    found = _rows_with(bad, kind, "is not a finite number", present, ids)
    if kind in _VECTORS and not found:
        # They are computed with in float32.
        large = np.asarray(np.abs(values) > _LARGEST)
        found = _rows_with(large, kind, "is beyond float32", present, ids)
    return found


def _rows_with(
    bad: npt.NDArray[np.bool_],
    kind: str,
    problem: str,
    present: npt.NDArray[np.bool_],
    ids: list[str] | None,
) -> list[BadRow]:
    rows = np.flatnonzero(bad.reshape(len(bad), -1).any(axis=1) & present)
    return [
        BadRow(
            row=row,
            id=str(row) if ids is None else ids[row],
            field=f"features/{kind}",
            problem=problem,
        )
        for row in rows.tolist()
    ]


def _target(table: Table, train: Table) -> tuple[AnyArray, list[str]]:
    target, own = table.values, train.values
    if target.shape[1:] != own.shape[1:]:
        raise JobError(
            "input_invalid",
            f"Features gradient and target_gradient have shapes {own.shape} and {target.shape}: "
            "checkpoints and dimensions must agree.",
        )
    if not np.isfinite(target).all():
        raise JobError("input_invalid", "Feature target_gradient has values that are not finite.")
    return target, table.tasks or ["target"] * len(target)
