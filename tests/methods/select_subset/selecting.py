"""Runs select-subset jobs in tests."""

import json

import numpy as np

from methods.local import LocalContext
from methods.select_subset.job import run
from methods.select_subset.result import Result
from methods.select_subset.spec import Spec


def select(folder, **spec):
    """The result of a job; what JSON cannot carry must not be in it."""
    parsed = Spec.model_validate_json(json.dumps(spec))
    result = run(parsed, LocalContext(folder, parsed))
    return Result.model_validate_json(result.model_dump_json())


def array(folder, result, key):
    return np.load(folder / result.artifacts[key].id, allow_pickle=False)


def text(folder, result, key):
    return (folder / result.artifacts[key].id).read_text()


def conversation(number, image=True, **more):
    """A LLaVA row."""
    row = {"id": number, **({"image": f"coco/{number}.jpg"} if image else {})}
    prompt = "<image>\nWhat is it?" if image else "What is it?"
    turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": f"thing {number}"}]
    return {**row, "conversations": turns, **more}


def trajectories(n, steps=7, seed=0):
    """Like those of XMAS: falling, in a few bundles."""
    rng = np.random.default_rng(seed)
    bundles = rng.integers(8, size=n)
    base = np.geomspace(150, 12, steps) * (1 + 0.2 * bundles[:, None])
    return base * (1 + 0.02 * rng.normal(size=(n, steps)))
