"""Level B: from rows of conversations and a model to the features that a method needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

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
from methods.select_subset.proxy.model.learning import learning_warnings
from methods.select_subset.proxy.model.proxy import Proxy, load_proxy
from methods.select_subset.proxy.rows.checking import TargetRows, check_rows, target_rows
from methods.select_subset.proxy.rows.encoded_rows import Examples
from methods.select_subset.proxy.rows.encoding import RowEncoder
from methods.select_subset.proxy.rows.spool import Spool
from methods.select_subset.proxy.shards.extraction import Extraction, Readings, ResumeKeys
from methods.select_subset.proxy.shards.reader import ProxyReader, Reader
from methods.select_subset.result import PreviewPiece, PreviewRow, ProxyReport
from methods.select_subset.schema.methods import CoincideParams
from methods.select_subset.schema.proxy_model import ProxyModel
from methods.select_subset.schema.reading_plan import OF_CLIP, ReadingWork
from methods.select_subset.spec import Spec
from methods.typing import AnyArray

#: Rows that are shown as the model reads them.
_PREVIEW = 3


@dataclass
class Extracted:
    """What the model gave.

    Attributes:
        tables: features by kind with the ids of the rows that have them.
        report: what became of the proxy, for the result.
        warnings: what speaks against its readings.
        blocks: layers of a COINCIDE embedding.
        weights: reads those after the fine-tuning, as `put_weights` takes them.
    """

    tables: dict[str, Table]
    report: ProxyReport
    warnings: list[str]
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
        proxy = load_proxy(model.name, ctx.models, model.max_tokens, seed, model.lora)
        return cls(model, proxy, None)

    @property
    def encoder(self) -> RowEncoder:
        found = self.clip or self.proxy
        assert found is not None, "one of the two is there"
        return found.encoder

    def sources(self, images: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(N,) rows that have what their other tokens are about: an image, or where the model reads
        text only a prompt, which every row counts as having."""
        text = self.proxy is not None and self.proxy.image_token_id is None
        return np.ones(len(images), dtype=np.bool_) if text else images

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

    def preview(self, examples: Examples, lengths: npt.NDArray[np.int64]) -> list[PreviewRow]:
        """The first rows as the model reads them."""
        if self.proxy is None:
            return []
        rows = np.flatnonzero(lengths)[:_PREVIEW].tolist()
        found = []
        for row, (encoded,) in zip(rows, examples.ahead([row] for row in rows), strict=True):
            pieces = [
                PreviewPiece(text=text, learnt=learnt)
                for text, learnt in self.proxy.encoder.shown(encoded)
            ]
            found.append(PreviewRow(row=row, tokens=len(encoded.ids), pieces=pieces))
        return found

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
            return Trained([0], [], 0.0)
        usable = np.flatnonzero(lengths)
        plan = Plan(
            epochs=settings.passes(len(usable)),
            checkpoints=settings.checkpoints,
            rows=settings.batch_rows,
            tokens=self.model.batch_tokens,
            learning_rate=settings.learning_rate,
            warmup=settings.warmup,
            weight_decay=settings.weight_decay,
            vision=settings.train_vision,
            seed=seed,
        )
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
        check_enough(spec, rows, opened.sources(rows.images), lengths > 0)
        aim = None
        if target is not None:
            aimed = stack.enter_context(Examples(target[1], opened.encoder))
            aim = target_rows(*target, aimed, ctx)
        work = work_of(spec, None if aim is None else aim.tasks.tolist())
        rooms = ResumeKeys(ctx, spec.model, spec.seed, spool.digest, lengths)
        trained = opened.train(examples, lengths, spec.seed, rooms.weights, ctx)
        places = places_of(spec, len(trained.marks))
        sources = opened.sources(rows.images)
        extraction = Extraction(spec.model, work, lengths, sources, rooms, ctx)
        read = extraction.run(places, opened.reader(work, aim), examples, spool, aim)
        names = None if aim is None else aim.names
        preview = opened.preview(examples, lengths)
        found = extracted(spec, rows, read, trained, names, opened.blocks, preview)
        if trained.losses:
            found.weights = lambda: weights_of(rooms.weights, len(trained.losses) - 1)
        return found


def is_clip(spec: Spec) -> bool:
    """Whether the model of a spec is a CLIP."""
    assert spec.params.from_model is not None, "the spec was checked"
    return bool(OF_CLIP & set(spec.params.from_model.readings.values()))


def check_enough(
    spec: Spec, rows: Rows, sources: npt.NDArray[np.bool_], usable: npt.NDArray[np.bool_]
) -> None:
    """Raise `JobError` for bad rows where the spec wants that, or when too little is left.

    Args:
        sources: (N,) see `LoadedModel.sources`. usable: (N,) rows that can be encoded.
    """
    if rows.bad and spec.on_bad_rows == "error":
        raise report(rows.bad, len(rows.ids))
    if not usable.any():
        raise JobError("input_invalid", "No row is left for the model.")
    if spec.method in {"xmas", "coincide", "clip_score"} and not sources.any():
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
        lora=spec.model.lora,
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
    preview: list[PreviewRow],
) -> Extracted:
    """Readings as the features of a spec."""
    wanted = spec.params.from_model
    assert wanted is not None, "the spec was checked"
    ids = [rows.ids[row] for row in read.rows.tolist()]
    tables: dict[str, Table] = {
        kind: Table(_joined(spec, read.values[name], name, wanted.when == "all"), ids)
        for kind, name in wanted.readings.items()
    }
    told = ProxyReport(
        rows_read=len(ids),
        epochs=trained.epochs if trained.losses else None,
        checkpoint_steps=[] if is_clip(spec) else trained.marks,
        losses=[round(loss, 6) for loss in trained.losses],
        tasks=tasks,
        preview=preview,
    )
    assert spec.model is not None, "called with a model"
    warnings = []
    if spec.model.fine_tune is not None and not is_clip(spec):
        of_checkpoints = next(iter(tables.values())).values if wanted.when == "all" else None
        warnings = learning_warnings(trained, spec.model.fine_tune.checkpoints, of_checkpoints)
    last = blocks if isinstance(spec.params, CoincideParams) else None
    return Extracted(tables, told, warnings, last)


def _joined(spec: Spec, parts: list[AnyArray], name: str, every: bool) -> AnyArray:
    """One array from those of the checkpoints."""
    if name == "influence":
        weights = getattr(spec.params, "checkpoint_weights", None) or [1.0] * len(parts)
        return np.tensordot(np.array(weights), np.stack(parts), axes=1)
    values = np.stack(parts, axis=1) if every else parts[0]
    perplexity = spec.method in {"perplexity", "middle_perplexity"}
    return np.exp(values) if perplexity else values
