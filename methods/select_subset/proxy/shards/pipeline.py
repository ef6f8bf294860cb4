"""Level B: from rows of conversations and a model to the features that a method needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from methods.context import RunContext
from methods.errors import JobError
from methods.finetuning.loop import Trained, weights_of
from methods.finetuning.schedule import Plan
from methods.resume import ResumeStore
from methods.select_subset.data.dataset import Rows, report
from methods.select_subset.data.feature_files import Table
from methods.select_subset.proxy.model.clip import Clip, load_clip
from methods.select_subset.proxy.model.fine_tuning import fine_tune
from methods.select_subset.proxy.model.forward_readings import activation_layers
from methods.select_subset.proxy.model.vlm import Proxy, load_proxy
from methods.select_subset.proxy.rows.checking import TargetRows, check_rows, target_rows
from methods.select_subset.proxy.rows.encoded_rows import Examples
from methods.select_subset.proxy.rows.encoding import RowEncoder
from methods.select_subset.proxy.rows.spool import Spool
from methods.select_subset.proxy.shards.extraction import Extraction, Readings, ResumeKeys
from methods.select_subset.proxy.shards.reader import ProxyReader, Reader
from methods.select_subset.reading_plan import OF_CLIP, ReadingWork
from methods.select_subset.schema.methods import CoincideParams
from methods.select_subset.schema.proxy_model import ProxyModel
from methods.select_subset.spec import Spec
from methods.typing import AnyArray


@dataclass
class Extracted:
    """What the model gave.

    Attributes:
        tables: features by kind with the ids of the rows that have them.
        report: steps and losses, for the result.
        blocks: layers of a COINCIDE embedding.
        weights: reads those after the fine-tuning, as `put_weights` takes them.
    """

    tables: dict[str, Table]
    report: dict[str, Any]
    blocks: int | None = None
    weights: Callable[[], bytes] | None = None


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns those of an accelerator into one of the job."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        text = "The accelerator is out of memory; lower model.batch_tokens."
        raise JobError("out_of_memory", text, retryable=False) from error


@dataclass
class LoadedModel:
    """The model of a job: a proxy, or a CLIP."""

    model: ProxyModel
    proxy: Proxy | None
    clip: Clip | None

    @classmethod
    def of(cls, model: ProxyModel, clip: bool, seed: int, ctx: RunContext) -> LoadedModel:
        """Raises the errors of `load_proxy` and `load_clip`."""
        if clip:
            return cls(model, None, load_clip(model.name, ctx.models))
        return cls(model, load_proxy(model.name, ctx.models, model.max_tokens, seed), None)

    @property
    def encoder(self) -> RowEncoder:
        found = self.clip or self.proxy
        assert found is not None, "one of the two is there"
        return found.encoder

    @property
    def blocks(self) -> int | None:
        """Layers of a COINCIDE embedding; None where it cannot be read."""
        try:
            return None if self.proxy is None else len(activation_layers(self.proxy.decoder))
        except JobError:
            return None

    def reader(self, work: ReadingWork, aim: TargetRows | None) -> Reader:
        if self.clip is not None:
            return self.clip
        assert self.proxy is not None, "one of the two is there"
        target = None if aim is None else (aim.examples, aim.batches(self.model.batch_tokens))
        return ProxyReader(self.proxy, work, target)

    def train(
        self,
        examples: Examples,
        lengths: npt.NDArray[np.int64],
        seed: int,
        weights: ResumeStore,
        ctx: RunContext,
    ) -> Trained:
        """Fine-tune the proxy; without that there is one checkpoint, as it is."""
        settings = self.model.fine_tune
        if self.proxy is None or settings is None:
            return Trained([0], [])
        plan = Plan(
            epochs=settings.epochs,
            checkpoints=settings.checkpoints,
            rows=settings.batch_rows,
            tokens=self.model.batch_tokens,
            learning_rate=settings.learning_rate,
            warmup=settings.warmup,
            weight_decay=settings.weight_decay,
            vision=settings.train_vision,
            seed=seed,
        )
        usable = np.flatnonzero(lengths)
        started = time.perf_counter()
        trained = fine_tune(
            self.proxy,
            lambda batches: examples.ahead(usable[list(b)].tolist() for b in batches),
            len(usable),
            plan,
            weights,
            lambda done, steps: ctx.progress("fine-tuning the proxy", done, steps, "steps"),
            ctx.metric,
        )
        ctx.log.info("The proxy was trained in %.1f s.", time.perf_counter() - started)
        return trained


def extract_features(
    spec: Spec, rows: Rows, spool: Spool, ctx: RunContext, target: tuple[Rows, Spool] | None = None
) -> Extracted:
    """Check every row, fine-tune the proxy, read it at its checkpoints.

    Bad rows are added to `rows.bad`.

    Raises:
        JobError: `input_invalid` for bad rows where the spec wants that, or when too little is
            left; those of the model, of `fine_tune` and of the engines; `out_of_memory`.
    """
    assert spec.model is not None, "called with a model"
    with memory_errors(), ExitStack() as stack:
        opened = LoadedModel.of(spec.model, is_clip(spec), spec.seed, ctx)
        examples = stack.enter_context(Examples(spool, opened.encoder))
        lengths = check_rows(rows, spool, examples, ctx)
        check_enough(spec, rows, lengths > 0)
        aim = None
        if target is not None:
            aimed = stack.enter_context(Examples(target[1], opened.encoder))
            aim = target_rows(*target, aimed, ctx)
        work = work_of(spec, None if aim is None else aim.tasks.tolist())
        rooms = ResumeKeys(ctx, spec.model, spec.seed, spool.digest, lengths)
        trained = opened.train(examples, lengths, spec.seed, rooms.weights, ctx)
        places = places_of(spec, len(trained.marks))
        extraction = Extraction(spec.model, work, lengths, rows.images, rooms, ctx)
        read = extraction.run(places, opened.reader(work, aim), examples, spool, aim)
        names = None if aim is None else aim.names
        found = extracted(spec, rows, read, trained, names, opened.blocks)
        if trained.losses:
            found.weights = lambda: weights_of(rooms.weights, len(trained.losses) - 1)
        return found


def is_clip(spec: Spec) -> bool:
    """Whether the model of a spec is a CLIP."""
    assert spec.params.from_model is not None, "the spec was checked"
    return bool(OF_CLIP & set(spec.params.from_model.readings.values()))


def check_enough(spec: Spec, rows: Rows, usable: npt.NDArray[np.bool_]) -> None:
    """Raise `JobError` for bad rows where the spec wants that, or when too little is left."""
    if rows.bad and spec.on_bad_rows == "error":
        raise report(rows.bad, len(rows.ids))
    if not usable.any():
        raise JobError("input_invalid", "No row is left for the model.")
    if spec.method in {"xmas", "coincide", "clip_score"} and not rows.images.any():
        raise JobError("input_invalid", f"Method {spec.method} needs images; no row has one.")


def work_of(spec: Spec, tasks: list[int] | None) -> ReadingWork:
    """What is to be read for a spec; `tasks` of its target rows."""
    assert spec.model is not None, "called with a model"
    assert spec.params.from_model is not None, "the spec was checked"
    return ReadingWork(
        model=spec.model.name,
        max_tokens=spec.model.max_tokens,
        seed=spec.seed,
        readings=sorted(spec.params.from_model.readings.values()),
        top_k=getattr(spec.params, "top_k", None) or 1,
        attention=spec.model.attention,
        tasks=tasks,
    )


def places_of(spec: Spec, checkpoints: int) -> list[int]:
    """The checkpoints that a method reads.

    Raises:
        JobError: `input_invalid` when `checkpoint_weights` are not as many.
    """
    assert spec.params.from_model is not None, "the spec was checked"
    weights = getattr(spec.params, "checkpoint_weights", None)
    if weights is not None and len(weights) != checkpoints:
        raise JobError(
            "input_invalid",
            f"params.checkpoint_weights has {len(weights)} values, there are {checkpoints} "
            "checkpoints.",
        )
    every = {"all": list(range(checkpoints)), "first": [0], "last": [checkpoints - 1]}
    return every[spec.params.from_model.when]


def extracted(
    spec: Spec,
    rows: Rows,
    read: Readings,
    trained: Trained,
    tasks: list[str] | None,
    blocks: int | None,
) -> Extracted:
    """Readings as the features of a spec."""
    wanted = spec.params.from_model
    assert wanted is not None, "the spec was checked"
    ids = [rows.ids[row] for row in read.rows.tolist()]
    tables: dict[str, Table] = {
        kind: Table(_joined(spec, read.values[name], name, wanted.when == "all"), ids)
        for kind, name in wanted.readings.items()
    }
    told: dict[str, Any] = {"rows_read": len(ids)}
    if not is_clip(spec):
        told["checkpoint_steps"] = trained.marks
    if trained.losses:
        told["proxy_losses"] = [round(loss, 6) for loss in trained.losses]
    if tasks is not None:
        told["tasks"] = tasks
    return Extracted(tables, told, blocks if isinstance(spec.params, CoincideParams) else None)


def _joined(spec: Spec, parts: list[AnyArray], name: str, every: bool) -> AnyArray:
    """One array from those of the checkpoints."""
    if name == "influence":
        weights = getattr(spec.params, "checkpoint_weights", None) or [1.0] * len(parts)
        return np.tensordot(np.array(weights), np.stack(parts), axes=1)
    values = np.stack(parts, axis=1) if every else parts[0]
    perplexity = spec.method in {"perplexity", "middle_perplexity"}
    return np.exp(values) if perplexity else values
