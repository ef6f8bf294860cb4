"""Level B: from rows of conversations and a proxy model to the features that a method needs."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from methods.context import RunContext
from methods.errors import JobError
from methods.select_subset.arrays import Table
from methods.select_subset.dataset import Rows, report
from methods.select_subset.params import CoincideParams, XmasParams
from methods.select_subset.proxy.checking import TargetRows, check_rows, target_rows
from methods.select_subset.proxy.encoding import Batch, packed
from methods.select_subset.proxy.examples import Examples
from methods.select_subset.proxy.extract import activation_layers, read_batch
from methods.select_subset.proxy.influence import TargetGradients
from methods.select_subset.proxy.kept import Kept
from methods.select_subset.proxy.spool import Spool
from methods.select_subset.proxy.training import Plan, fine_tune, load_weights
from methods.select_subset.proxy.vlm import Proxy, load_proxy
from methods.select_subset.spec import Spec

Array = npt.NDArray[Any]
_MOST_ROWS = 256


@dataclass
class Extracted:
    """What the proxy gave.

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
            left; those of `load_proxy` and `fine_tune`; `out_of_memory`.
    """
    assert spec.model is not None, "called with a model"
    torch.manual_seed(spec.seed)
    proxy = load_proxy(spec.model.name, ctx.models, spec.model.max_tokens)
    try:
        with ExitStack() as stack:
            examples = stack.enter_context(Examples(spool, proxy.encoder))
            lengths = check_rows(rows, spool, examples, ctx)
            if rows.bad and spec.on_bad_rows == "error":
                raise report(rows.bad, len(spool))
            if not lengths.any():
                raise JobError("input_invalid", "No row is left to train the proxy on.")
            if spec.method in {"xmas", "coincide"} and not rows.images.any():
                text = f"Method {spec.method} needs images; no row has one."
                raise JobError("input_invalid", text)
            aim = None
            if target is not None:
                aimed = stack.enter_context(Examples(target[1], proxy.encoder))
                aim = target_rows(*target, aimed, ctx)
            return _Work(spec, rows, spool, proxy, examples, lengths, ctx, aim).run()
    except torch.OutOfMemoryError as error:
        text = "The accelerator is out of memory; lower model.batch_tokens."
        raise JobError("out_of_memory", text, retryable=False) from error


class _Work:
    def __init__(
        self,
        spec: Spec,
        rows: Rows,
        spool: Spool,
        proxy: Proxy,
        examples: Examples,
        lengths: npt.NDArray[np.int64],
        ctx: RunContext,
        target: TargetRows | None,
    ) -> None:
        assert spec.model is not None, "checked above"
        self._spec, self._model, self._rows, self._ctx = spec, spec.model, rows, ctx
        self._proxy, self._examples, self._lengths = proxy, examples, lengths
        self._usable = np.flatnonzero(lengths)
        self._target = target
        self._report: dict[str, Any] = {}
        # Training does not depend on what is read afterwards, and reading not on the shards.
        settings = self._model.model_dump_json(include={"name", "fine_tune", "max_tokens"})
        parts = [settings, str(self._model.batch_tokens), str(spec.seed), spool.digest]
        parts.append(sha256(lengths.tobytes()).hexdigest())
        self._identity = sha256("\n".join(parts).encode()).hexdigest()
        self._weights = Kept(ctx, self._identity)

    def _readings(self, names: frozenset[Any]) -> Kept:
        """Where readings of these names are kept."""
        top_k = getattr(self._spec.params, "top_k", None)
        parts = [*sorted(names), self._model.attention, str(top_k), str(self._model.shard_rows)]
        if self._target is not None:
            parts += [self._target.digest, *self._target.names]
        return Kept(self._ctx, f"{self._identity} {' '.join(parts)}")

    def run(self) -> Extracted:
        marks = self._train()
        self._check_weights(len(marks))
        wanted = self._spec.params.from_model
        assert wanted is not None, "the spec was checked"
        last = len(marks) - 1
        asked = {
            kind: (
                name,
                list(range(len(marks))) if when == "all" else [0 if when == "first" else last],
            )
            for kind, (name, when) in wanted.items()
        }
        rows = self._to_read({name for name, _ in asked.values()})
        started = time.perf_counter()
        found = self._read_all(asked, rows)
        self._ctx.log.info("The proxy was read in %.1f s.", time.perf_counter() - started)
        ids = [self._rows.ids[row] for row in rows.tolist()]
        tables = {}
        for kind, (name, places) in asked.items():
            every = wanted[kind][1] == "all"
            values = self._joined([found[place][name] for place in places], name, every)
            tables[kind] = Table(values, ids)
        blocks = None
        if isinstance(self._spec.params, CoincideParams):
            blocks = len(activation_layers(self._proxy.decoder))
        if self._target is not None:
            self._report["tasks"] = self._target.names
        self._report |= {"checkpoint_steps": marks, "rows_read": len(rows)}
        return Extracted(tables, self._report, blocks)

    def _joined(self, parts: list[Array], name: str, every: bool) -> Array:
        """One array from those of the checkpoints."""
        if name == "influence":
            weights = getattr(self._spec.params, "checkpoint_weights", None) or [1.0] * len(parts)
            return np.tensordot(np.array(weights), np.stack(parts), axes=1)
        values = np.stack(parts, axis=1) if every else parts[0]
        perplexity = self._spec.method in {"perplexity", "middle_perplexity"}
        return np.exp(values) if perplexity else values

    def _check_weights(self, checkpoints: int) -> None:
        weights = getattr(self._spec.params, "checkpoint_weights", None)
        if weights is not None and len(weights) != checkpoints:
            raise JobError(
                "input_invalid",
                f"params.checkpoint_weights has {len(weights)} values, there are {checkpoints} "
                "checkpoints.",
            )

    def _train(self) -> list[int]:
        settings = self._model.fine_tune
        if settings is None:
            return [0]
        plan = Plan(
            epochs=settings.epochs,
            checkpoints=settings.checkpoints,
            rows=settings.batch_rows,
            tokens=self._model.batch_tokens,
            learning_rate=settings.learning_rate,
            warmup=settings.warmup,
            weight_decay=settings.weight_decay,
            vision=settings.train_vision,
            seed=self._spec.seed,
        )
        started = time.perf_counter()
        trained = fine_tune(
            self._proxy,
            lambda batches: self._examples.ahead(self._usable[list(b)].tolist() for b in batches),
            len(self._usable),
            plan,
            self._weights,
            lambda done, steps: self._ctx.progress("fine-tuning the proxy", done, steps, "steps"),
        )
        self._ctx.log.info("The proxy was trained in %.1f s.", time.perf_counter() - started)
        self._report["proxy_losses"] = [round(loss, 6) for loss in trained.losses]
        return trained.marks

    def _to_read(self, names: set[str]) -> npt.NDArray[np.int64]:
        """Rows with these readings, the longest first."""
        rows = self._usable
        if names & {"singular_values", "activations"}:
            rows = rows[self._rows.images[rows]]
        return rows[np.argsort(-self._lengths[rows], kind="stable")]

    def _read_all(
        self, asked: dict[str, tuple[str, list[int]]], rows: npt.NDArray[np.int64]
    ) -> dict[int, dict[str, Array]]:
        found: dict[int, dict[str, Array]] = {}
        for place in sorted({p for _, places in asked.values() for p in places}):
            names = frozenset(name for name, places in asked.values() if place in places)
            parts = list(self._read_checkpoint(place, names, rows))
            found[place] = {name: np.concatenate([p[name] for p in parts]) for name in names}
        return found

    def _read_checkpoint(
        self, place: int, names: frozenset[Any], rows: npt.NDArray[np.int64]
    ) -> Iterator[dict[str, Array]]:
        """Shard after shard; those of an earlier attempt are not read again."""
        loaded = self._model.fine_tune is None
        kept = self._readings(names)
        aim: TargetGradients | None = None
        for number, start in enumerate(range(0, len(rows), self._model.shard_rows)):
            shard = rows[start : start + self._model.shard_rows]
            name = f"shard-{place}-{number}"
            data = kept.find(name)
            if data is None:
                if not loaded:
                    load_weights(self._proxy, self._weights, place)
                    loaded = True
                if self._target is not None and aim is None:
                    aim = self._aim(self._target)
                phase = f"reading checkpoint {place}"
                self._ctx.log.info("Reading shard %d of checkpoint %d.", number, place)

                def tell(done: int, start: int = start, phase: str = phase) -> None:
                    self._ctx.progress(phase, start + done, len(rows), "rows")

                data = _npz(self._read_shard(shard, names, aim, tell))
                kept.keep(name, data)
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                yield {key: archive[key] for key in archive.files}

    def _aim(self, target: TargetRows) -> TargetGradients:
        """The gradients of the target items at the weights that the model has now."""
        found = TargetGradients(self._proxy, target.tasks)
        every = np.arange(len(target.lengths))
        for places, batch in self._batches(every, target.lengths, target.examples):
            self._ctx.check()
            found.add(batch, target.tasks[places])
        return found

    def _read_shard(
        self,
        shard: npt.NDArray[np.int64],
        names: frozenset[Any],
        aim: TargetGradients | None,
        tell: Callable[[int], None],
    ) -> dict[str, Array]:
        """The readings of the rows of a shard at the weights that the model has now."""
        found: dict[str, Array] = {}
        done = 0
        for places, batch in self._batches(shard, self._lengths, self._examples):
            tell(done)
            read = self._read(batch, names) if aim is None else {"influence": aim.influences(batch)}
            for name, values in read.items():
                if name not in found:
                    found[name] = np.zeros((len(shard), *values.shape[1:]), dtype=values.dtype)
                found[name][places] = values
            done += len(places)
        return found

    def _batches(
        self, rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], examples: Examples
    ) -> Iterator[tuple[Array, Batch]]:
        """Places in `rows` with their batch, the next encoded while this one is used."""
        groups = packed(lengths[rows], self._model.batch_tokens, _MOST_ROWS)
        encoded = examples.ahead(rows[places].tolist() for places in groups)
        for places, found in zip(groups, encoded, strict=True):
            yield places, Batch.of(found, self._proxy.encoder.pad, self._proxy.device)

    def _read(self, batch: Batch, names: frozenset[Any]) -> dict[str, Array]:
        params = self._spec.params
        top_k = params.top_k if isinstance(params, XmasParams) else None
        official = self._model.attention == "official"
        return read_batch(self._proxy, batch, names, top_k or 1, official)


def _npz(arrays: dict[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
