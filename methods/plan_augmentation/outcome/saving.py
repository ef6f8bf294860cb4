"""The files of a plan-augmentation result."""

from __future__ import annotations

import numpy as np

from methods.arrays.npz import savez
from methods.context import RunContext
from methods.plan_augmentation.planning.plan import Planned
from methods.plan_augmentation.spec import Spec
from methods.results import ArtifactRef
from methods.row_files import csv_bytes
from methods.seeds import derived_seed


def plan_files(found: Planned, spec: Spec, ctx: RunContext) -> dict[str, ArtifactRef]:
    """The plan as a table, as weights of a sampler, and the outputs that it rests on."""
    outputs, copies = found.outputs, found.copies
    strengths = [] if spec.generator is None else spec.generator.strength
    rows: list[list[object]] = [
        [
            "row",
            "id",
            "class",
            "slow",
            "loss",
            "margin",
            "new_images",
            "strengths",
            "seeds",
            "suspected_noise",
        ]
    ]
    for row in range(len(outputs.labels)):
        numbers = range(1, int(copies[row]) + 1)
        rows.append(
            [
                row,
                None if outputs.ids is None else outputs.ids[row],
                outputs.classes[outputs.labels[row]],
                int(found.slow[row]),
                float(found.losses[row]),
                float(found.margins[row]),
                int(copies[row]),
                " ".join(f"{strengths[(n - 1) % len(strengths)]:g}" for n in numbers)
                if strengths
                else "",
                " ".join(str(derived_seed("augment", spec.seed, row, n)) for n in numbers)
                if strengths
                else "",
                None if found.noise is None else int(found.noise[row]),
            ]
        )
    weights = savez(repeats=(1 + copies).astype(np.int64), slow=found.slow)
    kept = savez(logits=outputs.logits, labels=outputs.labels, losses=found.losses)
    return {
        "plan.csv": ctx.save_artifact("plan.csv", csv_bytes(rows), "text/csv"),
        "weights.npz": ctx.save_artifact("weights.npz", weights, "application/x-npz"),
        "outputs.npz": ctx.save_artifact("outputs.npz", kept, "application/x-npz"),
    }
