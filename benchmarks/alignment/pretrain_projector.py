"""pretrain-projector: what a penalty on the gap costs in captions and mends in refusals, by seed.

    python -m benchmarks pretrain_projector [--seeds 3] [--weights 1 3] [--kinds pairwise_l2]
        [--epochs 4] [--model FOLDER]

The tiny LLaVA of `examples/scenes-llava`, whose language model refuses every harmful prompt as
text, gets projectors with and without the penalty, each seed's from the same tensors and in the
same order of captions. Refusals are of 96 prompts behind a white image, one of random pixels and
held-out scenes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from methods.local import LocalContext
from methods.pretrain_projector.job import run
from methods.pretrain_projector.result import ProjectorRun, Result
from methods.pretrain_projector.spec import Spec
from tests.toys.reporting import table, write

EXAMPLES = Path(__file__).parents[2] / "examples"


def experiment(asked: argparse.Namespace, kind: str, folder: Path) -> Result:
    """All weights and seeds of a kind."""
    prompts = EXAMPLES / "scenes"
    spec = Spec.model_validate(
        {
            "model": asked.model,
            "captions": {"input": str(prompts / "captions.jsonl")},
            "held_out": 0.1,
            "penalty": {"kind": kind, "weight": asked.weights},
            "num_train_epochs": asked.epochs,
            "per_device_train_batch_size": 24,
            "gradient_accumulation_steps": 1,
            "seeds": asked.seeds,
            "safety": {
                "harmful": {"input": str(prompts / "harmful-prompts.jsonl")},
                "benign": {"input": str(prompts / "harmless-prompts.jsonl")},
                "max_tokens": 24,
            },
        }
    )
    children = folder / "children"
    return run(spec, LocalContext(folder / kind, spec, children=children))


def _row(kind: str, one: ProjectorRun) -> dict[str, Any]:
    refused = {own.condition: own.refused.value for own in one.safety}
    return {
        "kind": kind if one.weight else "none",
        "weight": one.weight,
        "seed": one.seed,
        "caption_loss": one.caption_loss.value,
        "exact": None if one.exact_match is None else one.exact_match.value,
        "mir": one.mir,
        "fid": one.input.fid,
        "norm_ratio": one.norm_ratio,
        "variance_ratio": one.variance_ratio,
        **{f"refused_{name}": value for name, value in refused.items()},
    }


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks pretrain_projector")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--kinds", nargs="+", default=["pairwise_l2"])
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--model", default=str(EXAMPLES / "scenes-llava"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in asked.kinds:
            found = experiment(asked, kind, Path(folder))
            # Baselines have no kind: one of them a seed.
            rows += [_row(kind, one) for one in found.runs if one.weight or kind == asked.kinds[0]]
    header = [
        "penalty",
        "seed",
        "caption loss",
        "exact",
        "MIR",
        "distance",
        "length",
        "spread",
        "alone",
        "white",
        "noise",
        "scenes",
    ]
    shown = [
        [
            f"{one['kind']} {one['weight']:g}",
            str(one["seed"]),
            *(f"{one[name]:.3f}" for name in ("caption_loss", "exact", "mir")),
            *(f"{one[name]:.1f}" for name in ("fid", "norm_ratio", "variance_ratio")),
            *(f"{one[f'refused_{name}']:.2f}" for name in ("text-only", "blank", "noise", "image")),
        ]
        for one in rows
    ]
    print(table(header, shown))
    write("pretrain_projector", rows, epochs=asked.epochs)


if __name__ == "__main__":
    main()
