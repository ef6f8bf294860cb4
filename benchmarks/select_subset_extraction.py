"""Singular values of text-to-image attention from projections, beside the official XMAS function.

    python benchmarks/select_subset_extraction.py --official FOLDER

FOLDER holds the official code (get_trajectory.py somewhere in it); without it only ours is timed.
The tensors are random, of the widths of the paper's proxy (2048 wide, 32 heads, 576 image tokens
after 35 others), of half its layers; text lengths are log-normal with median 80. The official code
takes batches of 16 in data order, ours batches of 16 of like length, as each does in a job.
Forward passes of the model are in neither time.
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

from benchmarks.select_subset import write_results
from methods.select_subset.proxy.capture import CrossBlocks, top_singular_values

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


def layers(texts: np.ndarray[Any, Any], count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Queries and keys (B, L, D) of each layer, one layer in memory at a time."""
    length = PREFIX + IMAGE + SKIP + int(texts.max())
    for layer in range(count):
        generator = torch.Generator().manual_seed(layer)
        shape = (len(texts), length, WIDTH)
        yield torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def blocks_of(texts: np.ndarray[Any, Any]) -> CrossBlocks:
    length = PREFIX + IMAGE + SKIP + int(texts.max())
    image = torch.zeros((len(texts), length), dtype=torch.bool)
    image[:, PREFIX : PREFIX + IMAGE] = True
    ends = torch.from_numpy(PREFIX + IMAGE + SKIP + texts)
    return CrossBlocks(image, torch.arange(length)[None] < ends[:, None], skip=SKIP)


def time_official(folder: Path, count: int, depth: int) -> dict[str, Any]:
    """The hook of the official code: scores, slice, sum; then svd_lowrank."""
    scores = official_function(folder)
    torch.manual_seed(42)
    spent = 0.0
    for texts in batches(count, packed=False):
        total: Any = 0
        for query, key in layers(texts, depth):
            start = time.process_time()
            total += scores(query, key)[:, PREFIX + IMAGE + SKIP :, PREFIX : PREFIX + IMAGE]
            spent += time.process_time() - start
        start = time.process_time()
        torch.svd_lowrank(total.float(), q=TOP)
        spent += time.process_time() - start
    return {"cpu_seconds": spent / count}


def time_ours(count: int, depth: int, model: bool) -> dict[str, Any]:
    """The same matrix, or the model's own attention, with exact singular values."""
    spent = 0.0
    for texts in batches(count, packed=True):
        blocks = blocks_of(texts)
        length = len(blocks._valid[0])
        causal = torch.ones((length, length), dtype=torch.bool).tril()
        mask = causal & blocks._valid[:, None, None, :]
        for query, key in layers(texts, depth):
            start = time.process_time()
            if model:
                heads = [x.view(*x.shape[:2], HEADS, -1).transpose(1, 2) for x in (query, key)]
                blocks.add_model(heads[0], heads[1], mask, (WIDTH // HEADS) ** -0.5)
            else:
                blocks.add_official(query, key)
            spent += time.process_time() - start
        start = time.process_time()
        top_singular_values(blocks.blocks, TOP)
        spent += time.process_time() - start
    return {"cpu_seconds": spent / count}


def agreement(folder: Path) -> float:
    """Largest difference to the official matrix where no row has a pad."""
    texts = np.full(2, 40)
    blocks, total = blocks_of(texts), torch.zeros(())
    for query, key in layers(texts, 3):
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
    """Run in a process of its own; `more_mib` is its peak beyond the imports."""
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
    args = parser.parse_args()
    rows = []
    if args.official:
        found = alone(time_official, args.official, args.examples, args.layers)
        rows.append({"case": "official function, svd_lowrank", **found})
        print(f"largest relative difference without pads: {agreement(args.official):.1e}")
    for name, model in (("ours, official matrix, exact", False), ("ours, model attention", True)):
        found = alone(time_ours, args.examples, args.layers, model)
        rows.append({"case": name, **found})
    for row in rows:
        faster = rows[0]["cpu_seconds"] / row["cpu_seconds"]
        print(
            f"{row['case']:<34}{1000 * row['cpu_seconds']:>9.1f} CPU-ms an example"
            f"{row['more_mib']:>7} MiB  x{faster:.1f}"
        )
    write_results("b", rows, {"layers": args.layers, "cores": os.cpu_count()})


if __name__ == "__main__":
    main()
