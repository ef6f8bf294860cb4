"""Level B: from rows of conversations and a model to the features that a method needs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from methods.context import RunContext
from methods.errors import JobError
from methods.select_subset.arrays import Table
from methods.select_subset.dataset import Rows, report
from methods.select_subset.params import CoincideParams
from methods.select_subset.proxy.checking import TargetRows, check_rows, target_rows
from methods.select_subset.proxy.clip import load_clip
from methods.select_subset.proxy.examples import Examples
from methods.select_subset.proxy.extract import activation_layers
from methods.select_subset.proxy.kept import Kept
from methods.select_subset.proxy.reader import ProxyReader, Reader
from methods.select_subset.proxy.reading import Extraction, Rooms
from methods.select_subset.proxy.spool import Spool
from methods.select_subset.proxy.training import Plan, fine_tune
from methods.select_subset.proxy.vlm import Proxy, load_proxy
from methods.select_subset.spec import Spec
from methods.select_subset.work import OF_CLIP, Work

Array = npt.NDArray[Any]


@dataclass
class Extracted:
    """What the model gave.

    Attributes:
        tables: features by kind with the ids of the rows that have them.
        report: steps and losses, for the result.
        blocks: layers of a COINCIDE embedding.
    """

    tables: dict[str, Table]
    report: dict[str, Any]
    blocks: int | None = None
    warnings: list[str] = field(default_factory=list)


def extract_features(
    spec: Spec, rows: Rows, spool: Spool, ctx: RunContext, target: tuple[Rows, Spool] | None = None
) -> Extracted:
    """Check every row, fine-tune the proxy, read it at its checkpoints.

    Bad rows are added to `rows.bad`.

    Raises:
        JobError: `input_invalid` for bad rows where the spec wants that, or when too little is
            left; those of `load_proxy`, `load_clip`, `fine_tune` and the engines;
            `out_of_memory`.
    """
    try:
        with ExitStack() as stack:
            return _extract(spec, rows, spool, ctx, target, stack)
    except torch.OutOfMemoryError as error:
        text = "The accelerator is out of memory; lower model.batch_tokens."
        raise JobError("out_of_memory", text, retryable=False) from error


def _extract(
    spec: Spec,
    rows: Rows,
    spool: Spool,
    ctx: RunContext,
    target: tuple[Rows, Spool] | None,
    stack: ExitStack,
) -> Extracted:
    assert spec.model is not None, "called with a model"
    wanted = spec.params.from_model
    assert wanted is not None, "the spec was checked"
    proxy: Proxy | None = None
    if OF_CLIP & set(wanted.readings.values()):
        reader: Reader = load_clip(spec.model.name, ctx.models)
        encoder = reader.encoder
    else:
        proxy = load_proxy(spec.model.name, ctx.models, spec.model.max_tokens, spec.seed)
        encoder = proxy.encoder
    examples = stack.enter_context(Examples(spool, encoder))
    lengths = _checked(spec, rows, spool, examples, ctx)
    aim = None
    if target is not None:
        aim = target_rows(*target, stack.enter_context(Examples(target[1], encoder)), ctx)
    work = _work(spec, aim)
    rooms = Rooms(ctx, spec, spool.digest, lengths)
    told: dict[str, Any] = {}
    marks = [0]
    if proxy is not None:
        marks = _trained(spec, proxy, examples, lengths, rooms.weights, ctx, told)
        told["checkpoint_steps"] = marks
        reader = _reader(proxy, work, aim, spec.model.batch_tokens)
    _check_weights(spec, len(marks))
    read = _to_read(set(work.readings), rows, lengths)
    extraction = Extraction(spec.model, work, read, lengths, rooms, ctx)
    places = {"all": list(range(len(marks))), "first": [0], "last": [len(marks) - 1]}[wanted.when]
    found = extraction.run(places, reader, examples, spool, aim)
    told["rows_read"] = len(read)
    if aim is not None:
        told["tasks"] = aim.names
    ids = [rows.ids[row] for row in read.tolist()]
    tables: dict[str, Table] = {
        kind: Table(_joined(spec, found[name], name, wanted.when == "all"), ids)
        for kind, name in wanted.readings.items()
    }
    coincide = proxy is not None and isinstance(spec.params, CoincideParams)
    blocks = len(activation_layers(proxy.decoder)) if coincide and proxy is not None else None
    return Extracted(tables, told, blocks)


def _checked(
    spec: Spec, rows: Rows, spool: Spool, examples: Examples, ctx: RunContext
) -> npt.NDArray[np.int64]:
    lengths = check_rows(rows, spool, examples, ctx)
    if rows.bad and spec.on_bad_rows == "error":
        raise report(rows.bad, len(spool))
    if not lengths.any():
        raise JobError("input_invalid", "No row is left to read the model on.")
    if spec.method in {"xmas", "coincide", "clip_score"} and not rows.images.any():
        raise JobError("input_invalid", f"Method {spec.method} needs images; no row has one.")
    return lengths


def _work(spec: Spec, aim: TargetRows | None) -> Work:
    assert spec.model is not None, "called with a model"
    assert spec.params.from_model is not None, "the spec was checked"
    return Work(
        model=spec.model.name,
        max_tokens=spec.model.max_tokens,
        seed=spec.seed,
        readings=sorted(spec.params.from_model.readings.values()),
        top_k=getattr(spec.params, "top_k", None) or 1,
        attention=spec.model.attention,
        tasks=None if aim is None else aim.tasks.tolist(),
    )


def _reader(proxy: Proxy, work: Work, aim: TargetRows | None, tokens: int) -> ProxyReader:
    target = None if aim is None else (aim.examples, aim.batches(tokens))
    return ProxyReader(proxy, work, target)


def _trained(
    spec: Spec,
    proxy: Proxy,
    examples: Examples,
    lengths: npt.NDArray[np.int64],
    weights: Kept,
    ctx: RunContext,
    told: dict[str, Any],
) -> list[int]:
    """Steps of the checkpoints."""
    assert spec.model is not None, "called with a model"
    settings = spec.model.fine_tune
    if settings is None:
        return [0]
    plan = Plan(
        epochs=settings.epochs,
        checkpoints=settings.checkpoints,
        rows=settings.batch_rows,
        tokens=spec.model.batch_tokens,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        weight_decay=settings.weight_decay,
        vision=settings.train_vision,
        seed=spec.seed,
    )
    usable = np.flatnonzero(lengths)
    started = time.perf_counter()
    trained = fine_tune(
        proxy,
        lambda batches: examples.ahead(usable[list(b)].tolist() for b in batches),
        len(usable),
        plan,
        weights,
        lambda done, steps: ctx.progress("fine-tuning the proxy", done, steps, "steps"),
    )
    ctx.log.info("The proxy was trained in %.1f s.", time.perf_counter() - started)
    told["proxy_losses"] = [round(loss, 6) for loss in trained.losses]
    return trained.marks


def _to_read(
    readings: set[str], rows: Rows, lengths: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Rows with these readings, ascending."""
    usable = lengths > 0
    if readings & {"singular_values", "activations", *OF_CLIP}:
        usable &= rows.images
    return np.flatnonzero(usable)


def _check_weights(spec: Spec, checkpoints: int) -> None:
    weights = getattr(spec.params, "checkpoint_weights", None)
    if weights is not None and len(weights) != checkpoints:
        raise JobError(
            "input_invalid",
            f"params.checkpoint_weights has {len(weights)} values, there are {checkpoints} "
            "checkpoints.",
        )


def _joined(spec: Spec, parts: list[Array], name: str, every: bool) -> Array:
    """One array from those of the checkpoints."""
    if name == "influence":
        weights = getattr(spec.params, "checkpoint_weights", None) or [1.0] * len(parts)
        return np.tensordot(np.array(weights), np.stack(parts), axes=1)
    values = np.stack(parts, axis=1) if every else parts[0]
    perplexity = spec.method in {"perplexity", "middle_perplexity"}
    return np.exp(values) if perplexity else values
