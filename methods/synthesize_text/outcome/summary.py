"""The figures of a synthesize-text result that come from texts and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from methods.synthesize_text.child_jobs import TargetMade
from methods.synthesize_text.outcome.choosing import distances_of, set_distance_of
from methods.synthesize_text.outcome.made import Made
from methods.synthesize_text.result import Curve, Diversity, LabelMade, SetDistances, TextMade
from methods.synthesize_text.texts.diversity import distinct, self_bleu, spread
from methods.synthesize_text.texts.overlap import words

_PREVIEW = 20
#: Outer steps in the result, over all labels; the artifact has all.
_MOST_STEPS = 400
T = TypeVar("T")


def alternating(rows: Sequence[Sequence[T]]) -> list[T]:
    """The first of each list, the second of each, and so on."""
    longest = max(len(own) for own in rows)
    return [own[k] for k in range(longest) for own in rows if k < len(own)]


def contrast_of(made: TargetMade) -> float | None:
    if not made.held_own or not made.held_other:
        return None
    own = float(np.median(made.held_own))
    return float(np.median(made.held_other)) / own if own > 0 else None


def labels(made: Made) -> list[LabelMade]:
    """What was made for each label."""
    sets = made.sets
    found = []
    for label, (name, choice) in enumerate(zip(made.names, made.choices, strict=True)):
        target, aim, texts = made.targets[label], made.aims[label], sets.candidates[label]
        own = choice.probabilities.argmax(axis=1) == label
        together, alone = {}, {}
        for key, one in (
            # As many as were kept: more texts have a smaller distance.
            ("unselected", sets.unselected[label].first(len(choice.kept))),
            ("random_vocabulary", sets.random[label].first(len(choice.kept))),
            ("noise_target", sets.noise[label] if sets.noise else None),
        ):
            if one is not None:
                together[key] = set_distance_of(name, one, None, target, made.bias)
                alone[key] = float(np.median(distances_of(name, one, target, made.bias)))
        dropped = choice.dropped_by()
        if made.drawn[label].empty:
            dropped["empty"] = made.drawn[label].empty
        losses = texts.log_loss[choice.kept]
        known = losses[np.isfinite(losses)]
        found.append(
            LabelMade(
                name=name,
                word=made.spec.labels[label].word,
                real=aim.used,
                held_out=aim.held_out,
                drawn=len(texts) + made.drawn[label].empty,
                kept=len(choice.kept),
                dropped_by=dropped,
                distance=SetDistances(
                    kept=set_distance_of(name, texts, choice.kept, target, made.bias),
                    held_out_real=aim.held_set_distance,
                    **together,
                ),
                median_distance=SetDistances(
                    kept=float(np.median(choice.distance[choice.kept])),
                    held_out_real=float(np.median(aim.held_own)) if aim.held_own else None,
                    **alone,
                ),
                contrast=contrast_of(aim),
                agreement=float(own.mean()),
                agreement_kept=float(own[choice.kept].mean()),
                log_loss=float(known.mean()) if len(known) else None,
                held_out_log_loss=aim.held_log_loss,
            )
        )
    return found


def diversity(made: Made) -> Diversity:
    """How much the kept texts differ."""
    kept, sets = made.kept(), made.sets
    every = [text for own in kept for text in own]
    bleus = [value for own in kept if (value := self_bleu(own)) is not None]
    spreads = [
        value
        for texts, choice in zip(sets.candidates, made.choices, strict=True)
        if (value := spread(texts.states[choice.kept])) is not None
    ]
    return Diversity(
        distinct_1=distinct(every, 1),
        distinct_2=distinct(every, 2),
        self_bleu4=float(np.mean(bleus)) if bleus else None,
        embedding_spread=float(np.mean(spreads)) if spreads else None,
        mean_words=float(np.mean([len(words(text)) for text in every])),
    )


def preview(made: Made) -> list[TextMade]:
    """Some of the kept texts, labels alternating."""
    rows = [
        [
            TextMade(
                text=texts.texts[row][:1_000],
                label=name,
                distance=float(choice.distance[row]),
                log_loss=float(texts.log_loss[row]) if np.isfinite(texts.log_loss[row]) else None,
            )
            for row in choice.kept[:_PREVIEW]
        ]
        for name, texts, choice in zip(made.names, made.sets.candidates, made.choices, strict=True)
    ]
    return alternating(rows)[:_PREVIEW]


def thinned(curves: list[Curve], labels: int) -> list[Curve]:
    """The curves at evenly spaced steps, first and last among them, where they have very many."""
    most = max(10, _MOST_STEPS // labels)
    last = {curve.label: curve.outer_step for curve in curves}

    def shown(curve: Curve) -> bool:
        steps = last[curve.label]
        if steps <= most:
            return True
        return curve.outer_step in set(np.linspace(1, steps, most).astype(int).tolist())

    return [curve for curve in curves if shown(curve)]


def curves(made: Made) -> list[Curve]:
    """Medians and quartiles over groups; empty where nothing was optimised."""
    found = []
    for name, drawn in zip(made.names, made.drawn, strict=True):
        steps = max((len(rows) for one in drawn.curves for rows in one.values()), default=0)
        for step in range(steps):
            values: dict[str, list[float]] = {}
            for one in drawn.curves:
                for key, rows in one.items():
                    if step < len(rows):
                        values.setdefault(key, []).extend(rows[step])
            found.append(
                Curve(
                    label=name,
                    outer_step=step + 1,
                    groups=max(len(one) for one in values.values()),
                    **{
                        key: np.percentile(one, (25, 50, 75)).tolist()
                        for key, one in values.items()
                    },
                )
            )
    return found
