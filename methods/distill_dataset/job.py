"""Runs a distill-dataset job: reads, distils, writes the npz."""

from __future__ import annotations

import time

import numpy as np
import torch

from methods.arrays.npz import savez
from methods.context import RunContext
from methods.distill_dataset import blocks, picking
from methods.distill_dataset.matching import (
    Matching,
    State,
    distribution_step,
    gradient_step,
    loops,
)
from methods.distill_dataset.spec import JOB, Result, Spec
from methods.errors import JobError
from methods.rank_distilled_dataset.children.bundles import device_class
from methods.rank_distilled_dataset.data import datasets
from methods.rank_distilled_dataset.data.augment import Augment
from methods.rank_distilled_dataset.data.datasets import RealData
from methods.rank_distilled_dataset.data.images import grid, write_png
from methods.rank_distilled_dataset.networks.names import parse_name, too_small
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.training.session import one_thread
from methods.results import FigureBlock, Provenance, chart
from methods.resume import ResumeStore
from methods.seeds import derived_seed

#: How often, in seconds, the state of a distillation is kept.
KEEP_EVERY = 30.0
MAX_POINTS = 200


def run(spec: Spec, ctx: RunContext) -> Result:
    """Distil a data set; see `Spec` and `Result`."""
    with one_thread():
        return _run(spec, ctx)


def _run(spec: Spec, ctx: RunContext) -> Result:
    started = time.process_time()
    ctx.progress("reading", 0, 1, "data sets")
    real = datasets.load(spec.dataset, ctx)
    labels = real.train.labels.numpy()
    if spec.ipc > int(np.bincount(labels).min()):
        kind = int(np.bincount(labels).argmin())
        count = int(np.bincount(labels).min())
        raise JobError(
            "input_invalid", f"Class {kind} has {count} training images, ipc is {spec.ipc}."
        )
    images, rows, losses, earlier = _images(spec, real, ctx)
    targets = np.repeat(np.arange(len(real.classes)), spec.ipc)
    data = savez(images=images, labels=targets)
    saved = ctx.save_artifact("distilled.npz", data, "application/x-npz")
    columns = spec.ipc if 4 <= spec.ipc <= 20 else 10
    shown = grid(real.shown(images[: blocks.GRID_IMAGES]), columns, max(1, 48 // images.shape[2]))
    picture = ctx.save_artifact("distilled.png", write_png(shown), "image/png")
    result = Result(
        images=saved,
        grid=picture,
        value_space="zca" if spec.dataset.zca else "normalized",
        method=spec.method,
        ipc=spec.ipc,
        classes=real.classes,
        shape=real.shape,
        rows=rows,
        loss=[value for _, value in _thinned(losses)],
        seconds=earlier + time.process_time() - started,
        dataset_digest=real.digest,
        warnings=real.warnings,
        provenance=Provenance.of(JOB, spec.seed, "torch", device=device_class()),
    )
    return blocks.present(result, [_figure(losses)] if losses else [])


def _images(
    spec: Spec, real: RealData, ctx: RunContext
) -> tuple[np.ndarray, list[int] | None, list[float], float]:
    """Images, their rows or the losses, and the processor seconds of earlier attempts."""
    images, labels = real.train.images.numpy(), real.train.labels.numpy()
    if spec.method == "class-means":
        return picking.part_means(images, labels, spec.ipc, spec.seed), None, [], 0.0
    if spec.method == "k-means":
        return picking.centroids(images, labels, spec.ipc, spec.seed, ctx.check), None, [], 0.0
    if spec.method in ("random", "herding"):
        if spec.method == "random":
            rows = datasets.draw_subset(labels, spec.ipc, derived_seed("random", spec.seed))
        else:
            rows = picking.herd_classes(_features(spec, real), labels, spec.ipc)
        return images[rows], rows.tolist(), [], 0.0
    state = _match(spec, real, ctx)
    return state.images.cpu().numpy(), None, state.loss, state.seconds


def _features(spec: Spec, real: RealData) -> np.ndarray:
    images = real.train.images
    if spec.space == "pixels":
        return images.flatten(1).numpy()
    _check_size(spec, real)
    network = build(spec.model, real.shape, len(real.classes), derived_seed("space", spec.seed))
    network.eval()
    with torch.inference_mode():
        return torch.cat([network.embed(part) for part in images.split(64)]).numpy()


def _check_size(spec: Spec, real: RealData) -> None:
    problem = too_small(parse_name(spec.model), *real.shape[1:])
    if problem:
        height, width = real.shape[1:]
        raise JobError("input_invalid", f"{spec.model}: {problem}, these are {height}x{width}.")


def _match(spec: Spec, real: RealData, ctx: RunContext) -> State:
    _check_size(spec, real)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    given = Matching(
        real=real.train.to(device),
        ipc=spec.ipc,
        classes=len(real.classes),
        model=spec.model,
        lr=spec.lr_images or (1.0 if spec.method == "dm" else 0.1),
        batch=spec.batch_real,
        augment=Augment(spec.augmentation, siamese=True),
        seed=spec.seed,
    )
    usual = loops(spec.ipc)
    outer = spec.outer or usual[0]
    inner = usual[1] if spec.inner is None else spec.inner
    # Another device rounds differently: its state is none to go on with.
    store = ResumeStore(ctx, f"{spec.model_dump_json()} {device.type}")
    state = _restored(store, device) or _start(spec, given)
    kept, began = time.monotonic(), time.process_time()
    while state.done < spec.iterations:
        ctx.progress("distilling", state.done, spec.iterations, "iterations")
        if spec.method == "dm":
            loss = distribution_step(given, state)
        else:
            loss = gradient_step(given, state, outer, inner, ctx.check)
        ctx.metric("loss", loss, state.done)
        if not np.isfinite(loss):
            raise JobError(
                "numerical_failure",
                f"The loss of iteration {state.done} is {loss}; lower lr_images.",
            )
        if time.monotonic() - kept > KEEP_EVERY:
            _keep(store, state, state.seconds + time.process_time() - began)
            kept = time.monotonic()
    ctx.progress("distilling", state.done, spec.iterations, "iterations")
    return state


def _start(spec: Spec, given: Matching) -> State:
    if spec.start == "real":
        labels = given.real.labels.cpu().numpy()
        rows = datasets.draw_subset(labels, spec.ipc, derived_seed("start", spec.seed))
        images = given.real.images[torch.from_numpy(rows).to(given.real.images.device)]
    else:
        shape = (given.classes * spec.ipc, *given.real.images.shape[1:])
        generator = torch.Generator().manual_seed(derived_seed("start", spec.seed))
        images = torch.randn(shape, generator=generator).to(given.real.images.device)
    return State(images.clone(), torch.zeros_like(images))


def _keep(store: ResumeStore, state: State, seconds: float) -> None:
    store.keep_arrays(
        "state",
        images=state.images.cpu().numpy(),
        velocity=state.velocity.cpu().numpy(),
        loss=np.array(state.loss),
        seconds=np.array(seconds),
    )


def _restored(store: ResumeStore, device: torch.device) -> State | None:
    kept = store.find_arrays("state")
    if kept is None:
        return None
    images, velocity = (torch.from_numpy(kept[name]).to(device) for name in ("images", "velocity"))
    loss = kept["loss"].tolist()
    return State(images, velocity, len(loss), loss, float(kept["seconds"]))


def _thinned(losses: list[float]) -> list[tuple[int, float]]:
    step = -(-len(losses) // MAX_POINTS) if losses else 1
    return [(place + 1, losses[place]) for place in range(0, len(losses), step)]


def _figure(losses: list[float]) -> FigureBlock:
    rows = [{"iteration": i, "loss": value} for i, value in _thinned(losses)]
    return FigureBlock(
        title="Matching loss",
        caption="Each iteration has another random network, hence the noise.",
        vega_lite=chart(
            rows,
            mark={"type": "line", "tooltip": True},
            encoding={
                "x": {"field": "iteration", "type": "quantitative", "title": "Iteration"},
                "y": {"field": "loss", "type": "quantitative", "title": "Loss"},
            },
        ),
    )
