"""Fine-tunes the proxy once over the data; `methods.finetuning` has the loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from methods.finetuning.loop import Loop, Trained
from methods.finetuning.schedule import Plan, row_order
from methods.resume import ResumeStore
from methods.select_subset.proxy.model.proxy import Proxy
from methods.select_subset.proxy.rows.encoding import IGNORED, Batch, Encoded, packed


def fine_tune(
    proxy: Proxy,
    rows: Callable[[Iterable[Sequence[int]]], Iterator[list[Encoded]]],
    count: int,
    plan: Plan,
    kept: ResumeStore,
    tell: Callable[[int, int], None],
    metric: Callable[[str, float, int], None],
) -> Trained:
    """Train, or go on where an earlier attempt stopped.

    The loss of a step is the mean over all its answer tokens; the parts that a step is cut into
    add up to exactly that.

    Args:
        rows: encodes batch after batch of rows 0 .. count - 1, if it can ahead of their use.
        tell: called with steps done and steps in all.
        metric: see `Loop.run`.

    Raises:
        JobError: `numerical_failure` when the loss is not finite.
    """
    loop = Loop[list[Encoded]](proxy.model, proxy.trainable(plan.vision), count, plan, kept)
    order = itertools.islice(row_order(plan, count), loop.done, None)
    batches = rows(places.tolist() for places in order)
    return loop.run(batches, lambda batch: _backward(proxy, batch, plan), tell, metric)


def _backward(proxy: Proxy, rows: list[Encoded], plan: Plan) -> float:
    answers = sum(int((row.labels[1:] != IGNORED).sum()) for row in rows)
    total = 0.0
    for places in packed([len(row.ids) for row in rows], plan.tokens, len(rows)):
        batch = Batch.of([rows[p] for p in places], proxy.encoder.pad, proxy.device)
        keep = torch.nonzero((batch.labels[:, 1:] != IGNORED).any(dim=0))[:, 0]
        with proxy.autocast():
            output = proxy.model(**proxy.arguments(batch), use_cache=False, logits_to_keep=keep)
        target = batch.labels[:, keep + 1]
        loss = torch.nn.functional.cross_entropy(
            output.logits.float().flatten(0, 1),
            target.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )
        loss = loss / answers
        loss.backward()
        total += float(loss.detach())
    return total
