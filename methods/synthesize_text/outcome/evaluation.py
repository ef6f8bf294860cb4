"""Fine-tuning on each set of texts, and how sure the comparison is."""

from __future__ import annotations

import numpy as np

from methods.results import Interval
from methods.synthesize_text.child_jobs import FinetunePart
from methods.synthesize_text.making import Making
from methods.synthesize_text.outcome.comparing import correct, mean_auc, mean_interval
from methods.synthesize_text.outcome.made import Made
from methods.synthesize_text.result import ArmDifference, ArmMade, ArmSeed
from methods.synthesize_text.seeds import derived_seed
from methods.typing import FloatArray, IntArray

#: Texts that are trained on at most: they travel in the spec of a part.
_MOST = 10_000


def evaluate(made: Made, making: Making) -> tuple[list[ArmMade], list[ArmDifference]]:
    """Fine-tune on each set and test on held-out real texts; empty where nobody asked for it."""
    sets, choices = made.sets, made.choices
    spec = made.spec
    if spec.evaluate is None:
        return [], []
    most = min(_MOST, spec.evaluate.steps * spec.evaluate.batch_size)
    arms: dict[str, list[list[str]] | None] = {"kept": made.kept()}
    sizes = [len(choice.kept) for choice in choices]
    controls = {"unselected": sets.unselected, "random-vocabulary": sets.random}
    for name in spec.evaluate.arms:
        found = controls.get(name)
        arms[name] = None
        if found is not None:
            pairs = zip(found, sizes, strict=True)
            arms[name] = [one.texts[:size] for one, size in pairs]
    parts, owners = [_finetuning(made, "none", None, 0, most)], ["none"]
    for arm, texts in arms.items():
        for number in range(spec.evaluate.seeds):
            parts.append(_finetuning(made, arm, texts, number, most))
            owners.append(arm)
    outcomes = making.finetune(parts)
    right: dict[str, list[FloatArray]] = {}
    seeds: dict[str, list[ArmSeed]] = {}
    sizes_of: dict[str, int] = {}
    for arm, (trained, truth, chances) in zip(owners, outcomes, strict=True):
        hits = correct(chances, truth.astype(np.int64)).astype(np.float64)
        right.setdefault(arm, []).append(hits)
        sizes_of[arm] = trained
        area = mean_auc(chances, truth.astype(np.int64))
        number = len(seeds.setdefault(arm, []))
        seeds[arm].append(ArmSeed(seed=number, accuracy=float(hits.mean()), auc=area))
    arms_made = []
    for arm, hits_of in right.items():
        areas = [one.auc for one in seeds[arm] if one.auc is not None]
        arms_made.append(
            ArmMade(
                arm=arm,
                n=sizes_of[arm],
                accuracy=mean_interval(np.stack(hits_of), bounds=(0.0, 1.0)),
                auc=float(np.mean(areas)) if areas else None,
                seeds=seeds[arm],
            )
        )
    return arms_made, [
        _difference(arm, np.stack(right["kept"]), np.stack(right[arm]))
        for arm in right
        if arm != "kept"
    ]


def _finetuning(
    made: Made, arm: str, texts: list[list[str]] | None, number: int, most: int
) -> FinetunePart:
    spec = made.spec
    assert spec.evaluate is not None, "asked for"
    rows = [(text, label) for label, own in enumerate(texts or []) for text in own]
    if len(rows) > most:
        # More are never seen.
        rng = np.random.default_rng(derived_seed(spec.seed, "trained on"))
        places: IntArray = np.sort(rng.choice(len(rows), most, replace=False))
        rows = [rows[place] for place in places]
    return FinetunePart(
        model=spec.model,
        real=spec.labelled(),
        template=spec.template,
        words=made.words,
        arm="texts" if texts is not None else "none" if arm == "none" else "real",
        texts=[text for text, _ in rows],
        labels=[label for _, label in rows],
        recipe={name: getattr(spec.evaluate, name) for name in ("steps", "batch_size", "lr")},
        # The same order of rows in every arm of a seed.
        seed=derived_seed(spec.seed, "fine-tuning", number),
        device=spec.device,
    )


def _difference(arm: str, kept: FloatArray, other: FloatArray) -> ArmDifference:
    found: Interval = mean_interval(kept - other)
    verdict = "not told apart"
    if found.low is not None and found.low > 0:
        verdict = "better"
    if found.high is not None and found.high < 0:
        verdict = "worse"
    return ArmDifference(arm="kept", than=arm, accuracy=found, verdict=verdict)
