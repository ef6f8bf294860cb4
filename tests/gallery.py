"""A real result of every job type, on small real inputs: what renderers are tested on."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from datassay.blocks import Content, load
from datassay.models import JobRecord
from datassay.view import ResultView
from sklearn.datasets import load_digits

from methods.__main__ import ArtifactFolder
from methods.local import LocalContext
from methods.registry import load_registry
from methods.results import JobResult
from tests.methods.align_safety import adapters
from tests.methods.plan_augmentation import test_job as augment
from tests.methods.pretrain_projector import worlds
from tests.methods.synthesize_text import grammar
from tests.toys import howto

ROOT = Path(__file__).parents[1]
ANSWERS = ROOT / "examples" / "qa-gemma.jsonl"
REPRESENTATIONS = ROOT / "tests" / "golden" / "theory" / "b2_digits_reps_seed0.npz"


def _digits_labels(folder: Path) -> str:
    """Odd or even, of the rows that the stored representations have."""
    rows = np.random.default_rng(0).permutation(1797)[800:1300]
    labels = load_digits(return_X_y=True)[1][rows] % 2
    np.save(folder / "labels.npy", np.where(labels, 1.0, -1.0))
    return "labels.npy"


def _select(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows = [{"id": f"row {k}", "topic": ["algebra", "geometry"][k % 2]} for k in range(60)]
    values = np.abs(rng.normal(size=(60, 3)).cumsum(axis=1)) + (np.arange(60) % 4)[:, None]
    rows[7]["topic"] = None
    return {
        "dataset": {"rows": rows},
        "features": {
            "kind": "trajectory",
            "values": values.tolist(),
            "ids": [r["id"] for r in rows],
        },
        "groups": {"field": "topic", "balance": "equal"},
        "budget": {"fraction": 0.25},
        "on_bad_rows": "skip",
    }


def _rank(folder: Path) -> dict[str, Any]:
    images, labels = load_digits(return_X_y=True)
    means = np.stack([images[labels == k].mean(axis=0) for k in range(10)]).reshape(10, 1, 8, 8)
    first = np.stack([images[labels == k][0] for k in range(10)]).reshape(10, 1, 8, 8)
    np.savez(folder / "sets.npz", means=means / 16, first=first / 16, labels=np.arange(10))
    return {
        "dataset": {"name": "digits"},
        "ipc": 1,
        "candidates": [
            {"name": name, "images": "sets.npz", "array": name, "value_space": "unit"}
            for name in ("means", "first")
        ],
        "train": {"epochs": 5},
        "runs": 2,
        "lr_grid": [0.01, 0.1],
    }


def _theory(folder: Path) -> dict[str, Any]:
    def representations(name: str, array: str) -> dict[str, str]:
        return {"name": name, "representations": str(REPRESENTATIONS), "array": array}

    return {
        "strong": representations("strong", "H_s_U"),
        "weak": [representations(f"weak {i}", f"H_w_U_{i:02d}") for i in range(0, 40, 8)],
        "labels": {"file": _digits_labels(folder), "kind": "regression"},
        "n_bootstrap": 50,
    }


def _weak_labels(folder: Path) -> dict[str, Any]:
    spec = _theory(folder)
    return {
        "strong": spec["strong"],
        "weak": spec["weak"][2],
        "weak_labels": {"file": _digits_labels(folder), "kind": "regression"},
    }


def _hardness(folder: Path) -> dict[str, Any]:
    images, labels = load_digits(return_X_y=True)
    for k in range(3):
        np.save(folder / f"digit{k}.npy", images[labels == k])
    sets: list[dict[str, Any]] = [
        {"name": f"digit {k}", "features": f"digit{k}.npy"} for k in range(3)
    ]
    sets.append({"name": "given", "covariance": [[1.0, 0.2], [0.2, 0.5]]})
    return {"datasets": sets, "explained_variance": 0.9, "n_bootstrap": 50}


def _synthesize(folder: Path) -> dict[str, Any]:
    more = {
        "method": "gradmm",
        "params": {"outer_steps": 2, "inner_steps": 4, "top_k": 8, "group_size": 4},
        "per_label": 4,
        "evaluate": {"steps": 4, "batch_size": 4},
    }
    return grammar.request(**more)


def _align(folder: Path) -> dict[str, Any]:
    steep = {"r": 1, "learning_rate": [2e-3, 3e-4], "per_device_train_batch_size": 4}
    return {
        "model": str(adapters.HOWTO),
        "train": {"rows": howto.refusals()[:48]},
        "template": {"think": howto.THINK},
        "configurations": [{"name": "steep", "num_train_epochs": 3, **steep}],
        "after": {"scale": [0.75], "project": [{"side": "both", "k": 8}]},
        "evaluate": {
            "harmful": {"rows": howto.harmful_prompts()[::8]},
            "benign": {"rows": howto.benign_prompts()[::8]},
            "reasoning": {"rows": howto.problems(24), "extractor": "exact"},
            "sampling": {"max_tokens": 64},
        },
    }


def _overlap(folder: Path) -> dict[str, Any]:
    given = adapters.files(folder, adapters.adapter(folder / "adapter"))
    return {"base": {"model": str(adapters.HOWTO)}, "update": {"adapter": given}, "k": 0.25}


def _project(folder: Path) -> dict[str, Any]:
    given = adapters.files(folder, adapters.adapter(folder / "adapter"))
    variants = [{"side": "both", "k": 16}, {"scale": 0.5}]
    return {"adapter": given, "base": {"model": str(adapters.HOWTO)}, "variants": variants}


def _responses(folder: Path) -> dict[str, Any]:
    def arm(name: str, refused: int) -> dict[str, Any]:
        rows = []
        for k, one in enumerate([*howto.harmful_prompts()[::8], *howto.benign_prompts()[::8]]):
            said = howto.REFUSAL if k < refused else "first get it then use it slowly"
            rows.append({"set": "harmful" if k < 20 else "benign", **one, "response": said})
        for k, one in enumerate(howto.problems(20)):
            rows.append({"set": "reasoning", "id": k, **one, "response": one["answer"]})
        return {"name": name, "rows": rows}

    return {"arms": [arm("before", 0), arm("tuned", 22)], "extractor": "exact"}


def _gap(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    subjects = []
    for name, factor, away in (("untreated", 6.0, 4.0), ("treated", 1.0, 1.3)):
        arrays: dict[str, Any] = {
            "image_pair": np.repeat(np.arange(40), 16),
            "text_pair": np.repeat(np.arange(40), 12),
        }
        for layer in range(3):
            arrays[f"image{layer}"] = rng.normal(size=(640, 8)) * factor / (layer + 1) + away
            arrays[f"text{layer}"] = rng.normal(size=(480, 8)) + 1
        np.savez(folder / f"{name}.npz", allow_pickle=False, **arrays)
        sides = {
            side: {
                "inputs": [f"{name}.npz"],
                "arrays": {str(layer): f"{side}{layer}" for layer in range(3)},
                "pair": f"{side}_pair",
            }
            for side in ("image", "text")
        }
        subjects.append({"name": name, "representations": sides})
    gaps = [0.2, 0.5, 0.9, 1.6, 2.4, 4.1]
    records = [
        {"name": f"model {k}", "gap": gap, "unsafe_rate": rate}
        for k, (gap, rate) in enumerate(zip(gaps, [0.0, 0.02, 0.1, 0.3, 0.6, 0.8], strict=True))
    ]
    return {
        "subjects": subjects,
        "sqrt": ["exact", "official_fast", "official_accurate"],
        "risk": {"records": records},
    }


def _projector(folder: Path) -> dict[str, Any]:
    model = worlds.untrained(folder / "llava")
    safety = {
        "harmful": worlds.prompts(howto.HARMFUL, 3),
        "benign": worlds.prompts(howto.BENIGN[:4], 1),
        "max_tokens": 8,
    }
    return worlds.small(model, penalty={"weight": [0.5, 2.0]}, safety=safety, held_out=0.4)


def _augment(folder: Path) -> dict[str, Any]:
    return {
        "dataset": augment.digits(folder, 120).model_dump(),
        "mode": "generate",
        "factor": 2,
        "generator": {**augment.TRAIN, "steps": 30},
        "early": {"epochs": 3, "of": 20},
        "evaluate": {"epochs": 8, "runs": 3, "arms": ["plain", "targeted", "spread"]},
    }


def _example(name: str) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: load_registry()[name].example


SPECS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "score-hallucination": lambda folder: {
        "input": str(ANSWERS),
        "scorers": ["snne", "semantic_entropy"],
    },
    "evaluate-scorers": lambda folder: {
        "input": str(ANSWERS),
        "scorers": ["snne", "discrete_semantic_entropy", "num_semantic_sets", "semantic_entropy"],
        "resamples": 200,
    },
    "calibrate-scorer": lambda folder: {"input": str(ANSWERS), "resamples": 200},
    "select-subset": _select,
    "rank-distilled-dataset": _rank,
    "distill-dataset": lambda folder: {
        "dataset": {"name": "digits"},
        "ipc": 2,
        "method": "dm",
        "iterations": 5,
    },
    "predict-weak-to-strong": _theory,
    "score-weak-labels": _weak_labels,
    "plan-test-time-compute": _example("plan-test-time-compute"),
    "score-task-hardness": _hardness,
    "synthesize-text": _synthesize,
    "align-safety": _align,
    "measure-update-overlap": _overlap,
    "project-adapter": _project,
    "score-responses": _responses,
    "measure-modality-gap": _gap,
    "pretrain-projector": _projector,
    "plan-augmentation": _augment,
}


@functools.cache
def result(name: str) -> tuple[JobResult, Path]:
    """The result of a job type and the folder with its artifacts; it is run once."""
    folder = Path(tempfile.mkdtemp(prefix=f"gallery-{name}-"))
    job_type = load_registry()[name]
    spec = job_type.spec.model_validate(SPECS[name](folder))
    found = job_type.load_runner()(spec, LocalContext(folder, spec))
    assert isinstance(found, JobResult)
    return found, folder


def view(name: str) -> tuple[ResultView, Content]:
    """A result as the client sees it, with what it leaves to artifacts."""
    found, folder = result(name)
    moment = datetime(2026, 11, 28, 12, tzinfo=UTC)
    job = JobRecord(
        id="job_019a3c5e7d1f7a2b8c4d5e6f70819203",
        type=name,
        type_version="1",
        state="SUCCEEDED",
        attempt=1,
        max_attempts=3,
        created_at=moment,
        started_at=moment,
        finished_at=moment.replace(second=42),
        labels={"team": "research"},
    )
    shown = ResultView(json.loads(found.model_dump_json()), job)
    return shown, load(shown.shown.blocks, ArtifactFolder(folder))
