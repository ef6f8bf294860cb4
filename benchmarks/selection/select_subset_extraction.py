"""Singular values of text-to-image attention from projections, beside the official XMAS function.

    python -m benchmarks select_subset_extraction --official FOLDER [--device cuda]

FOLDER holds the official code (get_trajectory.py somewhere in it); without it only ours is timed.
The tensors are random, of the widths of the paper's proxy (2048 wide, 32 heads, 576 image tokens
after 35 others), of half its layers; text lengths are log-normal with median 80. The official code
takes batches of 16 in data order, ours batches of 16 of like length, as each does in a job.
Forward passes of the model are in neither time. On a GPU queries and keys are bfloat16, as they are
in a job there, and times are wall time of the device.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.selection.select_subset import write_results
from methods.select_subset.proxy.model.attention_capture import CrossBlocks, top_singular_values

PREFIX, IMAGE, SKIP = 35, 576, 1
WIDTH, HEADS, BATCH, TOP = 2048, 32, 16, 5


def official_function(folder: Path) -> Callable[..., torch.Tensor]:
    """`attention_scores` of the official file, without what the file imports."""
    path = next(folder.rglob("get_trajectory.py"))
    tree = ast.parse(path.read_text())
    wanted = [
        n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "attention_scores"
    ]
    scope: dict[str, Any] = {"torch": torch}
    exec(compile(ast.Module(wanted, []), str(path), "exec"), scope)
    return scope["attention_scores"]


def batches(count: int, packed: bool) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    """Text lengths of each batch."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(80), 0.6, count), 8, 600).astype(np.int64)
    if packed:
        lengths = np.sort(lengths)[::-1]
    return [lengths[start : start + BATCH] for start in range(0, count, BATCH)]


class Clock:
    """Processor seconds, or on a GPU seconds until it has done all it was given."""

    def __init__(self, device: str) -> None:
        self.device = device

    def __call__(self) -> float:
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def layers(
    texts: np.ndarray[Any, Any], count: int, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Queries and keys (B, L, D) of each layer, one layer in memory at a time."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    length = PREFIX + IMAGE + SKIP + int(texts.max())
    for layer in range(count):
        generator = torch.Generator(device).manual_seed(layer)
        shape = (2, len(texts), length, WIDTH)
        drawn = torch.randn(shape, generator=generator, device=device).to(dtype)
        yield drawn[0], drawn[1]


def blocks_of(texts: np.ndarray[Any, Any], device: str) -> CrossBlocks:
    length = PREFIX + IMAGE + SKIP + int(texts.max())
    image = torch.zeros((len(texts), length), dtype=torch.bool, device=device)
    image[:, PREFIX : PREFIX + IMAGE] = True
    ends = torch.from_numpy(PREFIX + IMAGE + SKIP + texts).to(device)
    valid = torch.arange(length, device=device)[None] < ends[:, None]
    return CrossBlocks(image, valid, skip=SKIP)


def time_official(device: str, folder: Path, count: int, depth: int) -> dict[str, Any]:
    """The hook of the official code: scores, slice, sum; then svd_lowrank."""
    scores, clock = official_function(folder), Clock(device)
    torch.manual_seed(42)
    spent = 0.0
    for texts in batches(count, packed=False):
        total: Any = 0
        for query, key in layers(texts, depth, device):
            start = clock()
            total += scores(query, key)[:, PREFIX + IMAGE + SKIP :, PREFIX : PREFIX + IMAGE]
            spent += clock() - start
        start = clock()
        torch.svd_lowrank(total.float(), q=TOP)
        spent += clock() - start
    return {"seconds": spent / count}


def time_ours(device: str, count: int, depth: int, model: bool) -> dict[str, Any]:
    """The same matrix, or the model's own attention, with exact singular values."""
    spent, clock = 0.0, Clock(device)
    for texts in batches(count, packed=True):
        blocks = blocks_of(texts, device)
        length = len(blocks._valid[0])
        causal = torch.ones((length, length), dtype=torch.bool, device=device).tril()
        mask = causal & blocks._valid[:, None, None, :]
        for query, key in layers(texts, depth, device):
            start = clock()
            if model:
                heads = [x.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for x in (query, key)]
                blocks.add_model(heads[0], heads[1], mask, (WIDTH // HEADS) ** -0.5)
            else:
                blocks.add_official(query, key)
            spent += clock() - start
        start = clock()
        top_singular_values(blocks.blocks, TOP)
        spent += clock() - start
    return {"seconds": spent / count}


def agreement(folder: Path) -> float:
    """Largest difference to the official matrix where no row has a pad."""
    texts = np.full(2, 40)
    blocks, total = blocks_of(texts, "cpu"), torch.zeros(())
    for query, key in layers(texts, 3, "cpu"):
        blocks.add_official(query, key)
        found = official_function(folder)(query, key)
        total = total + found[:, PREFIX + IMAGE + SKIP :, PREFIX : PREFIX + IMAGE]
    return float((blocks.blocks - total).abs().max() / total.max())


def _case(pipe: Any, work: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = work(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send({**found, "more_mib": round((peak - before) / 1024)})


def alone(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run in a process of its own; `more_mib` is its peak beyond the imports, or the GPU's."""
    if arguments[0] == "cuda":
        work(*arguments)  # libraries choose kernels
        torch.cuda.reset_peak_memory_stats()
        return {**work(*arguments), "more_mib": torch.cuda.max_memory_allocated() >> 20}
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_case, args=(sender, work, arguments))
    child.start()
    found: dict[str, Any] = receiver.recv()
    child.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--official", type=Path)
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    args = parser.parse_args()
    rows = []
    if args.official:
        found = alone(time_official, args.device, args.official, args.examples, args.layers)
        rows.append({"case": "official function, svd_lowrank", **found})
        print(f"largest relative difference without pads: {agreement(args.official):.1e}")
    for name, model in (("ours, official matrix, exact", False), ("ours, model attention", True)):
        found = alone(time_ours, args.device, args.examples, args.layers, model)
        rows.append({"case": name, **found})
    for row in rows:
        faster = rows[0]["seconds"] / row["seconds"]
        print(
            f"{row['case']:<34}{1000 * row['seconds']:>9.2f} ms an example on {args.device}"
            f"{row['more_mib']:>7} MiB  x{faster:.1f}"
        )
    write_results("b", rows, {"layers": args.layers, "cores": os.cpu_count()})


if __name__ == "__main__":
    main()
