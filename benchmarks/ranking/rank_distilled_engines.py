"""Engines of rank-distilled-dataset side by side: what a step of a training costs, and whether the
weights agree.

    python -m benchmarks rank_distilled_engines [--device gpu] [--side-by-side 8] [--steps 40]

Each engine trains the same networks from the same start for a few steps (`stacked` and `graph` so
many side by side), in turn with the others. Compiling and recording are left out of the time of a
step and given beside it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from benchmarks._harness.timing import seconds
from methods.rank_distilled_dataset.children.setup import device_name, device_of
from methods.rank_distilled_dataset.data.examples import Examples
from methods.rank_distilled_dataset.networks.networks import build
from methods.rank_distilled_dataset.train_settings import ENGINES, EngineName
from methods.rank_distilled_dataset.training.engines import train_all
from methods.rank_distilled_dataset.training.session import Recipe, Session, one_thread
from tests.toys.reporting import table, write

#: Network, pixels a side, images.
CASES = {
    "cpu": [("ConvNet-3", 8, 10), ("ConvNet-3", 8, 100), ("ConvNet-3", 32, 10)],
    "gpu": [
        ("ConvNet-3", 8, 10),
        ("ConvNet-3", 32, 10),
        ("ConvNet-3", 32, 100),
        ("ConvNet-3", 32, 256),
        ("ConvNet-3-BN", 32, 100),
        ("ResNet-18-BN", 32, 100),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--side-by-side", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--cases", type=int, default=99, help="the first ones only")
    args = parser.parse_args()
    device = device_of("gpu" if args.device == "gpu" else "cpu")
    engines = [e for e in args.engines if e != "graph" or args.device == "gpu"]
    rows: list[dict[str, Any]] = []
    with one_thread():
        for model, side, images in CASES[args.device][: args.cases]:
            for engine in engines:
                case = {"network": model, "pixels": side, "images": images, "engine": engine}
                row = case | measure(engine, model, side, images, args, device)
                rows.append(row)
                print(row, flush=True)
    print(show(rows))
    write("rank_distilled_engines", rows, device=device_name(device), torch=torch.__version__)


def measure(
    engine: EngineName,
    model: str,
    side: int,
    images: int,
    args: argparse.Namespace,
    device: torch.device,
) -> dict[str, Any]:
    """Seconds of a step of one training, with the best of three rounds."""
    started = run(engine, model, side, images, 1, args.side_by_side, device)[0]
    times = []
    for _ in range(3):
        short = run(engine, model, side, images, 1, args.side_by_side, device)[0]
        long = run(engine, model, side, images, 1 + args.steps, args.side_by_side, device)[0]
        times.append((long - short) / args.steps / args.side_by_side)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = run(engine, model, side, images, 10, args.side_by_side, device)[1]
    peak = torch.cuda.max_memory_allocated() >> 20 if device.type == "cuda" else None
    wanted = run("sequential", model, side, images, 10, args.side_by_side, device)[1]
    return {
        "step": min(times),
        "first": started,
        "peak_mib": peak,
        "differs": float((found - wanted).norm() / wanted.norm()),
    }


def run(
    engine: EngineName,
    model: str,
    side: int,
    images: int,
    epochs: int,
    count: int,
    device: torch.device,
) -> tuple[float, torch.Tensor]:
    """Wall seconds of so many trainings on one batch each, and their weights."""
    sessions: list[Session] = []

    def make(place: int, kind: type[Session]) -> Session:
        generator = torch.Generator().manual_seed(place)
        pixels = torch.randn(images, 3, side, side, generator=generator)
        data = Examples(pixels, torch.arange(images) % 10).to(device)
        network = build(model, (3, side, side), 10, seed=place).to(device)
        recipe = Recipe(epochs, 0.01, step_size=epochs)
        sessions.append(kind(network, data, recipe, place))
        return sessions[-1]

    trainings = [lambda kind, k=k: make(k, kind) for k in range(count)]
    await_device(device)
    began = time.perf_counter()
    train_all(engine, trainings, {}, lambda: None, lambda place, curve: None)
    await_device(device)
    spent = time.perf_counter() - began
    flat = [p.detach().reshape(-1) for s in sessions for p in s.network.parameters()]
    return spent, torch.cat(flat).double()


def await_device(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def show(rows: list[dict[str, Any]]) -> str:
    plain = {
        (r["network"], r["pixels"], r["images"]): r["step"]
        for r in rows
        if r["engine"] == "sequential"
    }
    lines = []
    for r in rows:
        base = plain.get((r["network"], r["pixels"], r["images"]))
        lines.append(
            [
                f"{r['network']} {r['pixels']}x{r['pixels']} B={r['images']}",
                r["engine"],
                seconds(r["step"]),
                "" if base is None else f"{base / r['step']:.2f}",
                seconds(r["first"]),
                f"{r['differs']:.1e}",
                "" if r["peak_mib"] is None else f"{r['peak_mib']} MiB",
            ]
        )
    header = ["", "engine", "a step", "x sequential", "first round", "weights differ", "memory"]
    return table(header, lines)


if __name__ == "__main__":
    main()
