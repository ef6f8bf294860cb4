"""Leaderboards and warnings from scored candidates."""

from __future__ import annotations

import math
from collections import Counter
from hashlib import sha256

import numpy as np

from methods.rank_distilled_dataset.data.candidates import Loaded
from methods.rank_distilled_dataset.data.datasets import RealData
from methods.rank_distilled_dataset.presets import PRESETS
from methods.rank_distilled_dataset.protocol import plan, scores
from methods.rank_distilled_dataset.protocol.experiment import ModelComparison, Scored
from methods.rank_distilled_dataset.result import Leaderboard, Row, RunEstimate
from methods.rank_distilled_dataset.spec import Spec
from methods.statistics import student_interval
from methods.typing import FloatArray

DRAWS = 10_000
#: A given learning rate this many times off the chosen one is worth a warning.
FAR = 4.9


def estimate(values: FloatArray | None) -> RunEstimate | None:
    """Mean, deviations and interval over the runs."""
    if values is None:
        return None
    found = student_interval(values)
    return RunEstimate(
        **found.model_dump(),
        mean=float(values.mean()),
        sd=float(values.std()),
        sd_sample=float(values.std(ddof=1)) if len(values) > 1 else None,
        ci95=None if found.low is None or found.high is None else (found.low, found.high),
        runs=values.tolist(),
    )


def leaderboard(
    spec: Spec, real: RealData, comparison: ModelComparison, loaded: list[Loaded]
) -> Leaderboard:
    """The rows of one model, best first; equal scores keep the order of their names."""
    metric = spec.metrics[0]
    table = np.stack([scored.score(metric) for scored in comparison.scored])
    means = np.round(table.mean(axis=1), 12)
    names = [scored.candidate.name for scored in comparison.scored]
    order = sorted(range(len(means)), key=lambda i: (-means[i], names[i]))
    # Rows in the order of the names: the draws must not depend on how candidates were listed.
    named = sorted(order, key=lambda i: names[i])
    win, first = None, None
    if spec.runs > 1:
        place = {index: row for row, index in enumerate(named)}
        rows = [place[i] for i in order]
        # The same draws for both, so that neither contradicts the other.
        seeds = [np.random.default_rng([spec.seed, 1]) for _ in range(2)]
        win = scores.win_probabilities(table[named], DRAWS, seeds[0])[np.ix_(rows, rows)]
        first = scores.first_probabilities(table[named], DRAWS, seeds[1])[rows]
    rows_found = []
    for at, i in enumerate(order):
        row = _row(spec, real, comparison, comparison.scored[i], loaded[i])
        row.rank = 1 + int((means > means[i]).sum())
        row.behind = estimate(table[order[0]] - table[i]) if at else None
        row.p_first = None if first is None else float(first[at])
        rows_found.append(row)
    return Leaderboard(
        model=comparison.model,
        rows=rows_found,
        full=estimate(comparison.full),
        full_given=spec.full_data.accuracy is not None,
        win=None if win is None else win.tolist(),
    )


def _row(
    spec: Spec, real: RealData, comparison: ModelComparison, scored: Scored, loaded: Loaded
) -> Row:
    own = scored.choices[("own", "candidate")]
    random = scored.choices.get(("own", "random"))
    draw = None
    if scored.ior is not None and random is not None:
        half = scores.draw_half_width(own.accuracy, random.accuracy)
        middle = float(scored.ior.mean())
        draw = None if half is None else (middle - half, middle + half)
    of_means = None
    if scored.lrs is not None and scored.hlr is not None and scored.ior is not None:
        alpha = spec.lrs_lambda * scored.ior.mean() - (1 - spec.lrs_lambda) * scored.hlr.mean()
        of_means = float(scores.normalise(alpha))
    accuracy = estimate(own.accuracy)
    assert accuracy is not None
    hard = scored.choices.get(("hard", "candidate"))
    return Row(
        rank=0,
        name=scored.candidate.name,
        score=float(scored.score(spec.metrics[0]).mean()),
        lrs=estimate(scored.lrs),
        lrs_of_means=of_means,
        hlr=estimate(scored.hlr),
        ior=estimate(scored.ior),
        ior_draw95=draw,
        ars=estimate(scored.ars),
        gain_augmented=estimate(scored.gain_augmented),
        gain_bare=estimate(scored.gain_bare),
        accuracy=accuracy,
        accuracy_hard=estimate(hard.accuracy) if hard else None,
        accuracy_random=estimate(random.accuracy) if random else None,
        behind=None,
        p_first=None,
        lr=Counter(own.rates).most_common(1)[0][0],
        lr_random=Counter(random.rates).most_common(1)[0][0] if random else None,
        accuracy_by_lr={f"{rate:g}": value for rate, value in own.by_rate.items()},
        labels=scored.candidate.labels.kind,
        image_bytes=loaded.image_bytes,
        label_bytes=loaded.label_bytes,
        comparable=comparable(spec, real, comparison),
    )


def comparable(spec: Spec, real: RealData, comparison: ModelComparison) -> str:
    """A short digest of all that changes a score but the candidate and its own settings."""
    full = None if comparison.full is None else [round(v, 9) for v in comparison.full.tolist()]
    shared = {"metrics", "lrs_lambda", "ars_lambda", "protocol", "lr_grid", "held_out", "train"}
    shared |= {"ipc", "runs", "seed", "teacher", "device"}
    settings = spec.model_dump(mode="json", include=shared)
    settings["metrics"] = spec.metrics[0]
    if spec.protocol == "official":
        del settings["held_out"]
    parts = (real.digest, comparison.model, full, sorted(settings.items()))
    return sha256(repr(parts).encode()).hexdigest()[:12]


def warnings(
    spec: Spec, comparison: ModelComparison, board: Leaderboard, classes: int
) -> list[str]:
    """What a reader of the leaderboard has to know, in words."""
    texts = []
    chance = 1 / classes
    for scored in comparison.scored:
        texts += _about(spec, scored, chance)
    settings = (plan.train_settings(spec, scored.candidate) for scored in comparison.scored)
    if len({each.model_dump_json() for each in settings}) > 1:
        texts.append(
            "Candidates were trained with different settings; each has random subsets of its own "
            "setting, and the accuracies themselves are not comparable."
        )
    if board.full_given and spec.metrics[0] == "lrs":
        texts.append("The accuracy of the full data came with the request and was not measured.")
    if len(board.rows) > 1 and board.win is not None and board.win[0][1] < 0.95:
        texts.append(
            f"{board.rows[0].name} and {board.rows[1].name} cannot be told apart: the first wins "
            f"with probability {board.win[0][1]:.2f}, and is the best of all {len(board.rows)} "
            f"with probability {board.rows[0].p_first or 0:.2f}."
        )
    return [f"{comparison.model}: {text}" if len(spec.models) > 1 else text for text in texts]


def _about(spec: Spec, scored: Scored, chance: float) -> list[str]:
    name, texts = scored.candidate.name, []
    own = scored.choices[("own", "candidate")]
    rate = Counter(own.rates).most_common(1)[0][0]
    tried = scored.sides[("own", "candidate")].rates
    given = plan.given_rate(scored.candidate)
    if len(tried) > 1 and rate in (tried[0], tried[-1]):
        end = "lowest" if rate == tried[0] else "highest"
        texts.append(f"{name}: the {end} learning rate, {rate:g}, is the best; widen lr_grid.")
    if own.accuracy.mean() <= plan.CHANCE_FACTOR * chance:
        texts.append(
            f"{name}: its accuracy of {own.accuracy.mean():.3f} is about chance ({chance:.3f}); "
            "value space, class order or augmentation may be wrong."
        )
    preset = PRESETS.get(scored.candidate.preset or "")
    kind = scored.candidate.labels.kind
    if preset and preset.labels != kind:
        texts.append(f"{name}: its preset was published with {preset.labels} labels, not {kind}.")
    if "ars" in spec.metrics and scored.train.augmentation.name == "none":
        texts.append(f"{name}: it is trained without augmentation, so both halves of ARS agree.")
    official = spec.protocol == "official"
    if given is not None and official and ("own", "random") in scored.sides:
        texts.append(
            f"{name}: it was trained at its given learning rate while random subsets took their "
            "best of the grid; the official rule favours random. The protocol `fixed` does not."
        )
    if given is not None and not official:
        far = abs(math.log(given / rate)) > math.log(FAR)
        texts.append(
            f"{name}: syn_lr {given:g} is used by the protocol `official` only"
            + (f"; it is far from the chosen {rate:g}." if far else ".")
        )
    if spec.protocol == "official" and scored.train.epochs < plan.OFFICIAL_LONG_INTERVAL:
        texts.append(f"{name}: fewer epochs than between official evaluations; the last counts.")
    return texts


def general_warnings(spec: Spec) -> list[str]:
    """What does not depend on the trainings."""
    texts = []
    if spec.runs < 3:
        texts.append(f"{spec.runs} runs are too few for intervals; 5 are usual.")
    if spec.protocol == "official":
        texts.append(
            "The official rule picks epochs and learning rates on the test set, so its accuracies "
            "are a little too high."
        )
    return texts


def official_csv(board: Leaderboard) -> str:
    """One line a candidate and run, as fractions and, marked so, in percent."""
    head = "model,candidate,run,hlr,ior,lrs,ars,accuracy,hlr_percent,ior_percent,accuracy_percent"
    lines = [head]
    for row in board.rows:
        for run in range(len(row.accuracy.runs)):
            values = [e.runs[run] if e else None for e in (row.hlr, row.ior, row.lrs, row.ars)]
            values.append(row.accuracy.runs[run])
            percent = [None if v is None else 100 * v for v in (values[0], values[1], values[4])]
            cells = ["" if v is None else f"{v:.10g}" for v in (*values, *percent)]
            name = '"' + row.name.replace('"', '""') + '"'
            lines.append(",".join([board.model, name, str(run), *cells]))
    return "\n".join(lines) + "\n"
