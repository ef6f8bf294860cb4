"""What to know before trusting a synthesize-text result."""

from __future__ import annotations

from methods.synthesize_text.outcome.choosing import distances_of
from methods.synthesize_text.outcome.comparing import auc_interval
from methods.synthesize_text.outcome.made import Made
from methods.synthesize_text.result import Result

_LOW_CONTRAST, _FEW_TEXTS, _LOW_AGREEMENT, _LOW_COSINE = 1.2, 20, 0.6, 0.3
_MANY_DUPLICATES = 0.2


def of(result: Result, made: Made) -> list[str]:
    """Every warning but those of the input."""
    spec = made.spec
    warnings: list[str] = []
    warn = warnings.append
    for label, aim in zip(result.labels, made.aims, strict=True):
        quoted = repr(label.name)
        if label.contrast is not None and label.contrast < _LOW_CONTRAST:
            warn(
                f"The contrast of {quoted} is {label.contrast:.2f}: the gradient of this model "
                "hardly tells the labels apart; selection by it cannot transfer them."
            )
        if label.real < _FEW_TEXTS:
            warn(f"{quoted} has only {label.real} real texts to aim at; 20 or more are better.")
        if aim.used < aim.available:
            warn(
                f"The target of {quoted} is the mean of {aim.used:,} of {aim.available:,} real "
                "texts, drawn by the seed."
            )
        if aim.cut:
            warn(
                f"{aim.cut:,} of {aim.used:,} real texts of {quoted} were cut at "
                f"{spec.max_tokens} tokens (max_tokens)."
            )
        repeated = label.dropped_by.get("duplicate", 0)
        if repeated > _MANY_DUPLICATES * label.drawn:
            warn(f"{repeated / label.drawn:.0%} of the texts for {quoted} repeat another one.")
        if label.agreement is not None and label.agreement < _LOW_AGREEMENT:
            warn(
                f"The model itself gives the label {quoted} to {label.agreement:.0%} of the "
                "texts made for it: they may not say what they are labelled as."
            )
        if label.kept < spec.per_label:
            reasons = ", ".join(f"{n:,} by {why}" for why, n in label.dropped_by.items())
            warn(
                f"{label.kept:,} of {spec.per_label:,} texts were kept for {quoted}; dropped: "
                f"{reasons or 'none'}."
            )
    cut = sum(one.cut for one in made.drawn)
    if cut and not made.optimises:
        total = sum(label.drawn for label in result.labels)
        end = "as they are" if spec.lengths == "fixed" else "after their last whole sentence"
        warn(
            f"{cut:,} of about {total:,} drawn texts reached {spec.max_tokens} tokens "
            f"(max_tokens) and end {end}."
        )
    warnings += _of_controls(result, made)
    writes_itself = spec.generator is None or spec.generator.model == spec.model
    if writes_itself and spec.evaluate is not None:
        warn("The texts were written by the model that they are evaluated with.")
    warn("The generator may have seen these or similar real texts when it was trained.")
    if spec.lengths == "as-real":
        warn("Lengths are those of real texts: they disclose that statistic.")
    if result.leakage is None and spec.privacy is None:
        warn("No real text is held out, so copying and transfer have no control.")
    for release in result.privacy.releases if result.privacy else []:
        if release.expected_cosine < _LOW_COSINE:
            warn(
                f"The noisy target of {release.label!r} has a cosine of about "
                f"{release.expected_cosine:.2g} to the exact one: it says next to "
                "nothing of the texts. Bring more texts, raise epsilon or take a smaller "
                "subspace."
            )
    return warnings


def _of_controls(result: Result, made: Made) -> list[str]:
    warnings: list[str] = []
    for label, texts in enumerate(made.sets.noise):
        target = made.targets[label]
        near = made.choices[label].distance
        control = distances_of(made.names[label], texts, target, made.bias)
        found = auc_interval(control, near)
        if found.low is None or found.low <= 0.5:
            warnings.append(
                f"For {made.names[label]!r}, texts that were optimised towards the target cannot "
                "be told by their distance from texts optimised towards noise: the optimisation "
                "shows no effect here."
            )
    for one in result.differences:
        if one.than == "unselected" and one.verdict == "not told apart":
            warnings.append(
                "The kept texts cannot be told from unselected ones by fine-tuning: the "
                "interval of their difference has 0 in it."
            )
    return warnings
