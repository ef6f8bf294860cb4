"""One training of a proof: a model learns some rows and is asked about others."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from methods.context import RunContext
from methods.errors import JobError
from methods.finetuning.schedule import Plan
from methods.resume import ResumeStore
from methods.select_subset.child_jobs import ArmMeasured, ArmPart
from methods.select_subset.proof.marks import unmarked
from methods.select_subset.proxy.model.fine_tuning import fine_tune
from methods.select_subset.proxy.model.proxy import Proxy, load_proxy
from methods.select_subset.proxy.rows.checking import check_rows
from methods.select_subset.proxy.rows.encoded_rows import Examples
from methods.select_subset.proxy.rows.encoding import MOST_ROWS, packed
from methods.select_subset.proxy.rows.spool import spooled
from methods.select_subset.proxy.shards.pipeline import memory_errors
from methods.select_subset.proxy.shards.reader import ProxyReader, read_shard
from methods.select_subset.schema.reading_plan import ReadingWork
from methods.typing import IntArray

_READINGS = ["correct", "loss"]


def run_arm(spec: ArmPart, ctx: RunContext) -> ArmMeasured:
    """Runner of `select-subset-arm`.

    Raises: those of `measured`.
    """
    return measured(spec, ctx, ctx.metric)


def measured(
    spec: ArmPart, ctx: RunContext, metric: Callable[[str, float, int], None]
) -> ArmMeasured:
    """Train a model and ask it.

    Args:
        metric: called with the losses and learning rates of the training.

    Raises:
        JobError: those of the model and of `fine_tune`; `input_invalid` where no row is left to
            learn or to ask about.
    """
    with memory_errors(), ExitStack() as stack:
        lora = spec.train.lora
        proxy = load_proxy(spec.model, ctx.models, spec.max_tokens, spec.seed, lora)
        examples, lengths = _encoded(spec, "dataset", spec.learnt, proxy, ctx, stack)
        learnt = np.flatnonzero(lengths)
        if not len(learnt):
            raise JobError("input_invalid", "prove: no row is left that the model can learn.")
        plan = Plan(
            exactly=spec.steps,
            checkpoints=1,
            rows=spec.train.batch_rows,
            tokens=spec.batch_tokens,
            learning_rate=spec.train.learning_rate,
            warmup=spec.train.warmup,
            weight_decay=spec.train.weight_decay,
            vision=spec.train.train_vision,
            seed=spec.seed,
        )
        started = time.perf_counter()
        trained = fine_tune(
            proxy,
            lambda batches: examples.ahead(learnt[list(b)].tolist() for b in batches),
            len(learnt),
            plan,
            ResumeStore(ctx, spec.model_dump_json()),
            lambda done, steps: ctx.progress("training", done, steps, "steps"),
            metric,
        )
        seconds = time.perf_counter() - started
        examples, lengths = _encoded(spec, "eval", spec.asked, proxy, ctx, stack)
        loss, correct = _asked(spec, proxy, examples, lengths, ctx)
        return ArmMeasured(
            loss=loss,
            correct=correct,
            rows=len(learnt),
            asked=int((lengths > 0).sum()),
            steps=trained.marks[-1],
            seconds=seconds,
            device=str(proxy.device.type),
            train_loss=trained.losses[-1],
        )


def _encoded(
    spec: ArmPart, what: str, mask: str | None, proxy: Proxy, ctx: RunContext, stack: ExitStack
) -> tuple[Examples, IntArray]:
    """The rows of a mask and their tokens; 0 for the others and for those that do not fit."""
    dataset = spec.dataset if what == "dataset" or spec.eval is None else spec.eval
    rows, spool = spooled(dataset, None, False, ctx, stack, name=what)
    if mask is not None:
        rows.left_out = ~unmarked(mask, len(spool))
    examples = stack.enter_context(Examples(spool, proxy.encoder))
    return examples, check_rows(rows, spool, examples, ctx)


def _asked(
    spec: ArmPart, proxy: Proxy, examples: Examples, lengths: IntArray, ctx: RunContext
) -> tuple[float, float]:
    """Mean loss of the answers, in nats a token, and the share that the model gets right."""
    rows = np.flatnonzero(lengths)
    if not len(rows):
        raise JobError("input_invalid", "prove: no row is left to ask the model about.")
    work = ReadingWork(
        model=spec.model, max_tokens=spec.max_tokens, readings=_READINGS, lora=spec.train.lora
    )
    batches = [rows[places] for places in packed(lengths[rows], spec.batch_tokens, MOST_ROWS)]

    def tell(done: int) -> None:
        ctx.progress("asking", done, len(rows), "rows")

    proxy.model.eval()
    read = read_shard(ProxyReader(proxy, work), examples, batches, tell)
    return float(read["loss"].mean()), float(read["correct"].mean())
