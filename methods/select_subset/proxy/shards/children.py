"""A job with a model in parts: one trains the proxy, others read a shard each, side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import numpy.typing as npt

from methods.arrays.npz import loadz, savez
from methods.children import Child
from methods.context import RunContext
from methods.finetuning.loop import Trained, weights_of
from methods.select_subset.child_jobs import (
    PROXY_PART,
    SHARD_PART,
    ProxyPart,
    ProxyParts,
    ShardPart,
    ShardRead,
    ShardSize,
)
from methods.select_subset.data.dataset import Rows
from methods.select_subset.proxy.rows.checking import check_rows, target_rows
from methods.select_subset.proxy.rows.encoded_rows import Examples
from methods.select_subset.proxy.rows.spool import Spool, spooled, spooled_target
from methods.select_subset.proxy.shards.engines import Shard, cut, of_kinds
from methods.select_subset.proxy.shards.extraction import Readings, ResumeKeys
from methods.select_subset.proxy.shards.pipeline import (
    Extracted,
    LoadedModel,
    check_enough,
    extracted,
    is_clip,
    memory_errors,
    places_of,
    work_of,
)
from methods.select_subset.proxy.shards.reader import PackReader, Reader
from methods.select_subset.proxy.shards.shard_format import pack
from methods.select_subset.result import BadRow
from methods.select_subset.schema.duplicates import Duplicates
from methods.select_subset.schema.reading_plan import OF_CLIP, ReadingWork, of_images
from methods.select_subset.schema.sieve import Sieve
from methods.select_subset.spec import Spec
from methods.typing import AnyArray, IntArray

#: A shard lasts so long, so that starting a process for it and loading the model cost little.
SHARD_SECONDS = 120.0
_FEWEST_ROWS, _MOST_SHARDS = 256, 10_000
_NPZ = "application/x-npz"
_KEPT = Duplicates(action="keep")


def extract_apart(spec: Spec, rows: Rows, group_field: str | None, ctx: RunContext) -> Extracted:
    """What `pipeline.extract_features` does, by children.

    Args:
        group_field: a field without which a row is bad.

    Raises:
        JobError: as there; a child failed.
    """
    assert spec.model is not None, "called with a model"
    assert spec.dataset is not None, "the spec was checked"
    sieve = spec.sieve
    part = ProxyPart(
        dataset=spec.dataset,
        target=spec.target,
        # How it is read does not matter yet: other methods find the same proxy.
        model=spec.model.model_copy(update={"attention": "model"}),
        clip=is_clip(spec),
        seed=spec.seed,
        group_field=group_field,
        # Copies that are used do not matter to the proxy.
        duplicates=spec.duplicates if sieve.drop or sieve.held_out is not None else _KEPT,
        held_out=sieve.held_out,
        skip_bad=spec.on_bad_rows == "skip",
    )
    ctx.progress("checking rows and fine-tuning the proxy", 0, 1, "parts")
    child = _proxy(part, ctx)
    parts = ProxyParts.model_validate(child.result)
    with child.open("bad.jsonl") as lines:
        rows.bad = [BadRow.model_validate_json(line) for line in lines]
    sources = np.array([any(shard.images for shard in parts.shards)])
    check_enough(spec, rows, sources, np.array([bool(parts.shards)]))
    work = work_of(spec, parts.tasks)
    read = _read_all(part, parts, work, places_of(spec, len(parts.marks)), ctx)
    trained = Trained(parts.marks, parts.losses, parts.epochs)
    found = extracted(spec, rows, read, trained, parts.task_names, parts.blocks, parts.preview)
    if trained.losses:
        found.weights = lambda: _read(child, f"weights-{len(trained.losses) - 1}")
    return found


def _read(child: Child, name: str) -> bytes:
    with child.open(name) as reader:
        return reader.read()


def _proxy(part: ProxyPart, ctx: RunContext) -> Child:
    return next(iter(ctx.fan_out(PROXY_PART.name, [part])))


def _read_all(
    part: ProxyPart, parts: ProxyParts, work: ReadingWork, places: list[int], ctx: RunContext
) -> Readings:
    wanted = [n for n, shard in enumerate(parts.shards) if shard.images or not of_images(work)]
    keys = [(place, number) for place in places for number in wanted]
    specs = [ShardPart(proxy=part, work=work, place=p, shard=n) for p, n in keys]
    total = len(places) * sum(parts.shards[number].rows for number in wanted)
    readings: dict[tuple[int, int], dict[str, AnyArray]] = {}
    done = 0
    for child in ctx.fan_out(SHARD_PART.name, specs):
        with child.open("reading.npz") as reader:
            readings[keys[child.place]] = loadz(reader.read())
        done += parts.shards[keys[child.place][1]].rows
        ctx.progress("reading the model", done, total, "rows")
    return Readings.of([[readings[place, number] for number in wanted] for place in places])


def run_proxy(spec: ProxyPart, ctx: RunContext) -> ProxyParts:
    """Runner of `select-subset-proxy`."""
    with memory_errors(), ExitStack() as stack:
        needed = spec.group_field is not None
        sieve = Sieve(spec.duplicates, spec.held_out, spec.seed)
        rows, spool = spooled(spec.dataset, spec.group_field, needed, ctx, stack, sieve)
        opened = LoadedModel.of(spec.model, spec.clip, spec.seed, ctx)
        examples = stack.enter_context(Examples(spool, opened.encoder))
        lengths = check_rows(rows, spool, examples, ctx)
        text = "".join(row.model_dump_json() + "\n" for row in rows.bad)
        ctx.save_artifact("bad.jsonl", text.encode(), "application/x-ndjson")
        parts = ProxyParts(rows=len(spool), bad_rows=len(rows.bad), marks=[], losses=[], shards=[])
        if (rows.bad and not spec.skip_bad) or not lengths.any():
            return parts
        if spec.target is not None:
            target = spooled_target(spec.target, ctx, stack)
            aimed = stack.enter_context(Examples(target[1], opened.encoder))
            aim = target_rows(*target, aimed, ctx)
            ctx.save_artifact("target.npz", pack(aim.spool, aim.batches(_tokens(spec))), _NPZ)
            parts.tasks, parts.task_names = aim.tasks.tolist(), aim.names
        rooms = ResumeKeys(ctx, spec.model, spec.seed, spool.digest, lengths)
        trained = opened.train(examples, lengths, spec.seed, rooms.weights, ctx)
        parts.marks, parts.losses = trained.marks, trained.losses
        parts.epochs, parts.preview = trained.epochs, opened.preview(examples, lengths)
        parts.blocks = opened.blocks
        for place in range(len(trained.losses)):
            data = weights_of(rooms.weights, place)
            ctx.save_artifact(f"weights-{place}", data, "application/octet-stream")
        probe = ReadingWork(
            model=spec.model.name,
            max_tokens=spec.model.max_tokens,
            readings=["image_embedding" if spec.clip else "loss"],
        )
        reader = opened.reader(probe, None)
        sources = opened.sources(rows.images)
        parts.shards = list(_packed(spec, spool, examples, reader, lengths, sources, ctx))
        return parts


def _packed(
    spec: ProxyPart,
    spool: Spool,
    examples: Examples,
    reader: Reader,
    lengths: IntArray,
    images: npt.NDArray[np.bool_],
    ctx: RunContext,
) -> Iterator[ShardSize]:
    """Cut and save the shards: first those with images, each kind with the longest rows first."""
    pictured, texts = of_kinds(lengths > 0, images)
    kinds = [(pictured, True)] if spec.clip else [(pictured, True), (texts, False)]
    size = spec.model.shard_rows
    if size is None:
        size = _lasting(reader, examples, cut(kinds[0][0], lengths, _tokens(spec), 1))
    shards: list[tuple[Shard, bool]] = []
    for rows, kind in kinds:
        shards += [(shard, kind) for shard in cut(rows, lengths, _tokens(spec), size)]
    for number, (shard, kind) in enumerate(shards):
        ctx.progress("packing shards", number, len(shards), "shards")
        ctx.save_artifact(f"shard-{number}.npz", pack(spool, shard), _NPZ)
        yield ShardSize(rows=sum(len(batch) for batch in shard), images=kind)


def _lasting(reader: Reader, examples: Examples, batches: list[Shard]) -> int:
    """Rows that are read in `SHARD_SECONDS`, by a batch of middle length."""
    if not batches:
        return _FEWEST_ROWS
    (batch,) = batches[len(batches) // 2]
    (encoded,) = examples.ahead([batch.tolist()])
    seconds = 0.0
    for _ in range(2):  # the first also warms up
        started = time.perf_counter()
        reader.read(encoded)
        seconds = time.perf_counter() - started
    count = sum(len(b) for shard in batches for b in shard)
    wanted = int(SHARD_SECONDS * len(batch) / max(seconds, 1e-6))
    return max(_FEWEST_ROWS, count // _MOST_SHARDS, min(wanted, count))


def _tokens(spec: ProxyPart) -> int:
    return spec.model.batch_tokens


def run_shard(spec: ShardPart, ctx: RunContext) -> ShardRead:
    """Runner of `select-subset-shard`."""
    with memory_errors():
        proxy = _proxy(spec.proxy, ctx)
        tuned = spec.proxy.model.fine_tune is not None and not OF_CLIP & set(spec.work.readings)

        target = _read(proxy, "target.npz") if spec.work.tasks is not None else None
        reader = PackReader(spec.work, ctx.models, target)
        try:
            reader.use(_read(proxy, f"weights-{spec.place}") if tuned else None)
            rows = ProxyParts.model_validate(proxy.result).shards[spec.shard].rows

            def tell(done: int) -> None:
                ctx.progress("reading the model", done, rows, "rows")

            readings = reader.read(_read(proxy, f"shard-{spec.shard}.npz"), tell)
        finally:
            reader.close()
        ctx.save_artifact("reading.npz", savez(**readings), _NPZ)
        return ShardRead(rows=rows)
