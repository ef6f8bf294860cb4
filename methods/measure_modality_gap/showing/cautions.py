"""What to know before a gap is trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from methods.measure_modality_gap.child_jobs import GapMade
from methods.measure_modality_gap.result import GapLayer, GapOf, Result, RiskFitted
from methods.measure_modality_gap.showing.safety import about_safety
from methods.measure_modality_gap.spec import Spec
from methods.results import counted

_FEW_PAIRS, _TOKENS_A_DIMENSION, _MANY_OUTLIERS = 30, 10, 0.05
_RATIO = (0.5, 2.0)


def of(spec: Spec, result: Result, made: Sequence[GapMade]) -> list[str]:
    """All warnings of a result."""
    found = []
    for one, part in zip(result.subjects, made, strict=True):
        found += [f"{one.name}: {text}" for text in [*part.warnings, *_about(one, spec)]]
    found += _about_comparison(result.subjects)
    if "official_fast" in spec.sqrt:
        found.append(
            "MIR's fast mode takes no root of the covariances: of identical clouds it is not 0, "
            "and it understates how much of a gap was closed. Use it to compare with published "
            "values only."
        )
    if result.risk is not None:
        found += _about_risk(result.risk)
    if result.safety is not None:
        found += about_safety(result.safety)
    return found


def _about(one: GapOf, spec: Spec) -> Iterator[str]:
    few = [
        layer for layer in one.layers if min(layer.r, layer.s) < _TOKENS_A_DIMENSION * layer.width
    ]
    if few:
        worst = min(few, key=lambda layer: min(layer.r, layer.s))
        null = ""
        if worst.null is not None:
            null = (
                f" Shuffled labels give {worst.null.mean:.3g} at layer {worst.layer}, the real "
                f"ones {worst.null.observed:.3g}."
            )
        yield (
            f"Fréchet distances are biased upward: {worst.r:,} image and {worst.s:,} text tokens "
            f"of {worst.width:,} values, fewer than {_TOKENS_A_DIMENSION} a value. Compare models "
            f"on the same pairs only.{null}"
        )
    if one.pairs is not None and one.pairs < _FEW_PAIRS:
        yield f"It rests on {counted(one.pairs, 'pair')}; take {_FEW_PAIRS} or more."
    lowest = one.layers[0]
    ratio = lowest.norm_ratio
    if ratio is not None and not _RATIO[0] <= ratio <= _RATIO[1]:
        yield (
            f"Image tokens are {ratio:.2g} times as long as text tokens at layer {lowest.layer}: "
            "the gap is mostly a matter of length."
        )
    for name, side in (("image", "v"), ("text", "t")):
        yield from _about_side(one, name, side)
    if spec.text == "after_image" and any(s.name == one.name and s.model for s in spec.subjects):
        yield "Words of the template count as text, as in MIR's code."
    if not one.mir_exact.full and one.mir_exact.layers:
        shown = ", ".join(map(str, one.mir_exact.layers))
        yield f"MIR is of the layers {shown} only, and comparable with the same sum alone."
    if not one.mir_exact.layers:
        yield "Only layer 0 was measured, so there is no MIR: it sums layers from 1 on."


def _about_side(one: GapOf, name: str, side: str) -> Iterator[str]:
    def share(layer: GapLayer) -> float:
        tokens = layer.r if side == "v" else layer.s
        return float(getattr(layer, f"outliers_{side}")) / tokens

    worst = max(one.layers, key=share)
    if share(worst) > _MANY_OUTLIERS:
        yield f"{share(worst):.0%} of the {name} tokens of layer {worst.layer} are outliers."
    constant = [layer.layer for layer in one.layers if getattr(layer, f"tr_{side}") == 0]
    if constant:
        yield f"All {name} tokens of layer {constant[0]} are one and the same vector."


def _about_comparison(subjects: Sequence[GapOf]) -> Iterator[str]:
    first = subjects[0]
    for other in subjects[1:]:
        if other.layers[0].width != first.layers[0].width:
            yield (
                f"{other.name} has states of another width than {first.name}: distances cannot be "
                "compared across widths; compare centroid_l2_text_scaled and auc."
            )
        elif [one.layer for one in other.layers] != [one.layer for one in first.layers]:
            yield f"{other.name} has other layers than {first.name}: their MIR are of other sums."
        elif (other.layers[0].r, other.layers[0].s) != (first.layers[0].r, first.layers[0].s):
            yield (
                f"{other.name} has another number of tokens than {first.name}: the bias of few "
                "tokens differs; see the nulls."
            )


def _about_risk(risk: RiskFitted) -> Iterator[str]:
    if not risk.curve:
        yield f"{counted(risk.n, 'record')} are too few for a curve (five at least): ranks only."
    elif risk.exact_p is not None and risk.exact_p > 0.05:
        yield (
            f"Your records show no relation of gap and unsafe rate (p = {risk.exact_p:.2g}): "
            "nothing is predicted."
        )
    for one in risk.predictions:
        if one.outside:
            yield f"{one.name}: its gap is outside the range of your records."
        if one.gap is None:
            yield f"{one.name}: {risk.measure} was not measured, so that its risk is unknown."
