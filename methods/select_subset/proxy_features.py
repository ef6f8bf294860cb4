"""What a job with a model does before and after the choice; torch is imported only here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from methods.arrays.npz import savez
from methods.context import RunContext
from methods.errors import JobError
from methods.results import ArtifactRef
from methods.select_subset.algorithms.budgets import Outcome
from methods.select_subset.child_jobs import HERE_ROWS
from methods.select_subset.data.dataset import Rows
from methods.select_subset.data.feature_files import Table
from methods.select_subset.result import ProxyReport
from methods.select_subset.schema.methods import CoincideParams
from methods.select_subset.schema.proxy_model import ProxyModel
from methods.select_subset.spec import Spec

if TYPE_CHECKING:
    from methods.select_subset.proxy.rows.spool import Spool


@dataclass
class Extra:
    """What such a job adds to its result.

    Attributes:
        report: what became of the proxy. warnings: for the result.
    """

    report: ProxyReport
    warnings: list[str]
    tables: dict[str, Table]
    spool: Spool
    model: ProxyModel
    seed: int
    weights: Callable[[], bytes] | None

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that readings depend on."""
        return {name: version(name) for name in ("torch", "transformers")}

    def artifacts(self, outcome: Outcome, ctx: RunContext) -> dict[str, ArtifactRef]:
        """`features`, for further jobs with other budgets, and the contact sheet."""
        from methods.select_subset.proxy.rows.contact_sheet import contact_sheet

        found = {"features": ("features.npz", _npz(self.tables), "application/x-npz")}
        sheet = contact_sheet(outcome, self.spool)
        if sheet is not None:
            found["contact_sheet"] = ("contact_sheet.png", sheet, "image/png")
        return {
            key: ctx.save_artifact(name, data, kind) for key, (name, data, kind) in found.items()
        }

    def save_model(self, ctx: RunContext) -> ArtifactRef:
        """Store the fine-tuned proxy: model, tokenizer and image processor."""
        from methods.finetuning.loop import put_weights
        from methods.select_subset.proxy.model.proxy import load_proxy

        assert self.weights is not None, "the spec was checked"
        model = self.model
        proxy = load_proxy(model.name, ctx.models, model.max_tokens, self.seed, model.lora)
        put_weights(proxy.model, self.weights())
        folder = ctx.workdir / "model"
        proxy.merged().save_pretrained(folder)
        proxy.encoder.processor.save_pretrained(folder)
        return ctx.save_model("model", folder)


def given(
    spec: Spec, group_field: str | None, group_needed: bool, ctx: RunContext, stack: ExitStack
) -> tuple[Rows, dict[str, Table], Spec, Extra]:
    """Rows and features of a job with a model.

    Args:
        stack: closes the files after the job.

    Returns:
        Rows, features by kind, the spec with what only the model knows, and the extra results.

    Raises:
        JobError: `model_unavailable` where the worker has no torch; those of `extract_features`.
    """
    try:
        from methods.select_subset.proxy.rows.spool import spooled, spooled_target
        from methods.select_subset.proxy.shards.children import extract_apart
        from methods.select_subset.proxy.shards.pipeline import extract_features
        from methods.select_subset.proxy.shards.ray_data import ray_address
    except ImportError as error:
        raise JobError(
            "model_unavailable",
            f"A model needs the packages torch, transformers and pillow: {error}.",
            retryable=False,
        ) from error
    assert spec.dataset is not None, "the spec was checked"
    model = spec.model
    assert model is not None, "called with a model"
    rows, spool = spooled(spec.dataset, group_field, group_needed, ctx, stack, spec.sieve)
    # Rows that came with the spec would be in the spec of every part.
    many = spec.dataset.input is not None and len(spool) > (model.shard_rows or HERE_ROWS)
    if ctx.parallel and many and ray_address() is None:
        found = extract_apart(spec, rows, group_field if group_needed else None, ctx)
    else:
        target = None if spec.target is None else spooled_target(spec.target, ctx, stack)
        found = extract_features(spec, rows, spool, ctx, target)
    if isinstance(spec.params, CoincideParams) and found.blocks is not None:
        params = spec.params.model_copy(update={"blocks": found.blocks})
        spec = spec.model_copy(update={"params": params})
    return (
        rows,
        found.tables,
        spec,
        Extra(
            report=found.report,
            warnings=found.warnings,
            tables=found.tables,
            spool=spool,
            model=model,
            seed=spec.seed,
            weights=found.weights,
        ),
    )


def _npz(tables: dict[str, Table]) -> bytes:
    arrays: dict[str, Any] = {kind: table.values for kind, table in tables.items()}
    ids = next(iter(tables.values())).ids
    return savez(id=np.array(ids, dtype=np.str_), **arrays)
