"""Runs a select-subset job: validates, matches features with rows, chooses, writes."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from methods.context import RunContext
from methods.results import ArtifactRef, Provenance
from methods.select_subset import (
    blocks,
    brought,
    duplicate_rows,
    examples,
    figures,
    proxy_features,
    training_files,
)
from methods.select_subset.algorithms.budgets import Candidates, Outcome, solve
from methods.select_subset.data import artifacts
from methods.select_subset.data.copies import Copies
from methods.select_subset.data.dataset import Rows, report
from methods.select_subset.data.feature_files import Table
from methods.select_subset.data.features import Features, match
from methods.select_subset.out_of_core.job import beyond_memory, run_large
from methods.select_subset.proof.proof import prove
from methods.select_subset.result import BadRow, Clusters, GroupCount, Result, Validation
from methods.select_subset.spec import JOB, Spec
from methods.select_subset.stability import stability
from methods.typing import BoolArray, IntArray

_INLINE = 10_000
_EXAMPLES = 100
_QUANTILES = (0, 0.25, 0.5, 0.75, 1)


def run(spec: Spec, ctx: RunContext) -> Result:
    """Choose the rows that a spec asks for; see `Spec` and `Result`."""
    file = beyond_memory(spec, ctx)
    if file is not None:
        return run_large(spec, file, ctx)
    with ExitStack() as stack:
        rows, tables, spec, extra = _given(spec, ctx, stack)
        return _chosen(spec, rows, tables, extra, ctx)


def _given(
    spec: Spec, ctx: RunContext, stack: ExitStack
) -> tuple[Rows | None, dict[str, Table], Spec, proxy_features.Extra | None]:
    """The rows and the features, brought along or from the proxy model."""
    field = spec.groups.field if spec.groups else None
    if spec.model is not None:
        return proxy_features.given(spec, field, _needs_groups(spec), ctx, stack)
    rows, tables = brought.given(spec, field, _needs_groups(spec), ctx, stack)
    return rows, tables, spec, None


@dataclass
class _Sifted:
    """What may be chosen, and what may not.

    Attributes:
        bad: rows that cannot be used. copies: None where they were not looked for.
        dropped: (N,) copies that are left out.
    """

    given: Candidates
    features: Features
    bad: list[BadRow]
    copies: Copies | None
    dropped: BoolArray


def _sifted(spec: Spec, rows: Rows | None, tables: dict[str, Table], ctx: RunContext) -> _Sifted:
    """Match features with rows, and leave out bad rows, copies and rows that are held out.

    Raises:
        JobError: those of `match`; `input_invalid` for bad rows where the spec wants that.
    """
    ids, count = _identities(rows, tables)
    features = match(spec, tables, ids, count)
    text_only = rows.text_only if rows is not None else np.zeros(count, dtype=np.bool_)
    unused = np.zeros(count, dtype=np.bool_)
    if rows is not None and rows.left_out is not None:
        unused = rows.left_out
    bad = [row for row in _bad_rows(spec, rows, features, ids, text_only) if not unused[row.row]]
    if bad and spec.on_bad_rows == "error":
        raise report(bad, count)
    usable = np.ones(count, dtype=np.bool_)
    usable[[row.row for row in bad]] = False
    copies = duplicate_rows.find(spec, rows, features, usable & ~unused, ctx.check)
    dropped = np.zeros_like(unused)
    if copies is not None and spec.sieve.drop:
        # Rows whose first one is held out went with it.
        unused = unused | (copies.rows & usable[copies.of])
        dropped = copies.rows & unused
    groups = rows.groups if rows is not None else None
    given = Candidates(
        usable & ~unused, text_only, features.present, features.values, ids, groups, features.target
    )
    return _Sifted(given, features, bad, copies, dropped)


def _chosen(
    spec: Spec,
    rows: Rows | None,
    tables: dict[str, Table],
    extra: proxy_features.Extra | None,
    ctx: RunContext,
) -> Result:
    sifted = _sifted(spec, rows, tables, ctx)
    given, copies = sifted.given, sifted.copies
    ctx.progress("choosing", 0, 1, "steps")
    outcome = solve(spec, given, ctx.check)
    outcome.warnings[:0] = sifted.features.warnings
    _reorder(spec, outcome)
    duplicates = None
    if copies is not None:
        duplicates = duplicate_rows.report(copies, outcome, given.ids, sifted.dropped)
        told = duplicate_rows.warnings(duplicates, spec, len(outcome.rows), len(given.usable))
        outcome.warnings += told
    saved = _files(spec, rows, sifted, outcome, extra, ctx)
    proof = None
    if spec.prove is not None:
        proof = prove(spec, outcome, None if rows is None else rows.asked, ctx)
    ctx.progress("drawing", 0, 1, "steps")
    result = _result(spec, outcome, given, saved)
    result.duplicates, result.proof = duplicates, proof
    result.stability = stability(spec, given, outcome, ctx.check)
    if extra is not None:
        result.provenance.versions |= extra.versions
        result.proxy = extra.report
    result.validation = _validation(sifted.bad, len(given.usable), given.text_only)
    result.validation.text_only_selected = int(given.text_only[outcome.rows].sum())
    drawn = figures.draw(outcome, given.features, np.flatnonzero(given.usable & given.present))
    shown = None
    if rows is not None and spec.dataset is not None:
        shown = examples.block(spec.dataset, rows, outcome, ctx)
    return blocks.present(result, spec.method, drawn, shown)


def _files(
    spec: Spec,
    rows: Rows | None,
    sifted: _Sifted,
    outcome: Outcome,
    extra: proxy_features.Extra | None,
    ctx: RunContext,
) -> dict[str, ArtifactRef]:
    """Write what the spec asks for, and what was left out."""
    saved = artifacts.write(spec, outcome, sifted.given.ids, rows, ctx)
    if sifted.copies is not None and sifted.copies.rows.any():
        saved["duplicates"] = duplicate_rows.write(sifted.copies, sifted.given.ids, ctx)
    wanted = {str(one) for one in spec.output.what} & {"messages", "llava", "recipe"}
    if wanted and rows is not None and spec.dataset is not None:
        files, told = training_files.write(spec.dataset, rows, outcome.rows, wanted, ctx)
        saved |= files
        outcome.warnings += told
    if sifted.bad:
        saved["bad_rows"] = artifacts.write_bad_rows(sifted.bad, ctx)
        outcome.warnings.append(f"{len(sifted.bad)} bad rows were left out.")
    if extra is not None:
        outcome.warnings += extra.warnings
        saved |= extra.artifacts(outcome, ctx)
        if "model" in spec.output.what:
            saved["model"] = extra.save_model(ctx)
    return saved


def _needs_groups(spec: Spec) -> bool:
    balanced = spec.groups is not None and spec.groups.balance != "none"
    return balanced or spec.method == "presel"


def _identities(rows: Rows | None, tables: dict[str, Table]) -> tuple[list[str] | None, int]:
    if rows is not None:
        return rows.ids, len(rows.text_only)
    first = next(table for kind, table in tables.items() if kind != "target_gradient")
    return first.ids, len(first.values)


def _bad_rows(
    spec: Spec, rows: Rows | None, features: Features, ids: list[str] | None, text_only: np.ndarray
) -> list[BadRow]:
    """Bad rows of the data set and of the features, one entry a row, in row order."""
    ignored = text_only if spec.method == "xmas" or spec.keep_text_only != "group" else None
    found = {bad.row: bad for bad in reversed(features.bad)}
    if ignored is not None:
        found = {row: bad for row, bad in found.items() if not ignored[row]}
    missing = np.flatnonzero(~features.present & ~text_only)
    for row in missing.tolist():
        name = str(row) if ids is None else ids[row]
        found[row] = BadRow(row=row, id=name, field="features", problem="has no features")
    for bad in rows.bad if rows is not None else []:
        found[bad.row] = bad
    return [found[row] for row in sorted(found)]


def _reorder(spec: Spec, outcome: Outcome) -> None:
    if spec.output.order == "method":
        return
    if spec.output.order == "input":
        places: IntArray = np.argsort(outcome.rows)
    else:
        places = np.random.default_rng([spec.seed, 4]).permutation(len(outcome.rows))
    outcome.rows, outcome.weights = outcome.rows[places], outcome.weights[places]


def _result(
    spec: Spec, outcome: Outcome, given: Candidates, saved: dict[str, ArtifactRef]
) -> Result:
    selected = len(outcome.rows)
    return Result(
        requested=outcome.requested,
        selected=selected,
        shortfall=outcome.requested - selected,
        filled=outcome.filled,
        candidates=len(outcome.candidates),
        indices=outcome.rows.tolist() if selected <= _INLINE else None,
        artifacts=saved,
        clusters=_clusters(outcome),
        per_group=_per_group(outcome, given.groups),
        validation=_validation([], len(given.usable), given.text_only),
        details=outcome.details,
        warnings=outcome.warnings,
        provenance=Provenance.of(JOB, spec.seed),
        input_digest=_digest(given),
    )


def _clusters(outcome: Outcome) -> Clusters | None:
    filled = outcome.sizes > 0
    if not filled.any():
        return None
    return Clusters(
        k=int(filled.sum()),
        dropped=outcome.dropped,
        size_quantiles=np.quantile(outcome.sizes[filled], _QUANTILES).tolist(),
        quota_quantiles=np.quantile(outcome.quotas[filled], _QUANTILES).tolist(),
        inertia=outcome.inertia,
        iterations=outcome.iterations,
    )


def _per_group(outcome: Outcome, groups: list[str] | None) -> dict[str, GroupCount] | None:
    if groups is None:
        return None
    rows = Counter(groups[row] for row in outcome.candidates.tolist())
    chosen = Counter(groups[row] for row in outcome.rows.tolist())
    return {name: GroupCount(rows=rows[name], selected=chosen[name]) for name in sorted(rows)}


def _validation(bad: list[BadRow], count: int, text_only: np.ndarray) -> Validation:
    problems = Counter(f"{row.field} {row.problem}".strip() for row in bad)
    return Validation(
        rows=count,
        bad_rows=len(bad),
        text_only_rows=int(text_only.sum()),
        problems=dict(problems.most_common(_EXAMPLES)),
        examples=bad[:_EXAMPLES],
    )


def _digest(given: Candidates) -> str:
    digest = sha256()
    digest.update(np.packbits(given.usable).tobytes() + np.packbits(given.text_only).tobytes())
    for names in (given.ids, given.groups):
        if names is not None:
            digest.update("\0".join(names).encode(errors="surrogatepass"))
    for kind in sorted(given.features):
        values = np.ascontiguousarray(given.features[kind])
        digest.update(f"{kind} {values.dtype} {values.shape}".encode())
        digest.update(values.data)
    if given.target is not None:
        digest.update(np.ascontiguousarray(given.target[0]).tobytes())
        digest.update("\0".join(given.target[1]).encode())
    return f"sha256:{digest.hexdigest()}"
