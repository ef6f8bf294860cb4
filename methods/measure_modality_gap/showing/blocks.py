"""What people see of a measure-modality-gap result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from methods.measure_modality_gap.result import GapOf, Result
from methods.measure_modality_gap.showing import figures, safety
from methods.results import Block, Column, Headline, TextBlock, counted, table

_HONEST = (
    "A smaller gap is no proof of safety. In models of LLaVA's kind the gap is mostly length: "
    "image tokens are many times as long as text tokens. And a model whose gap was closed may "
    "still answer anything to blank or noisy images: measure refusals before you rely on it."
)


def present(result: Result, sketches: Mapping[str, Sequence[tuple[float, float, bool]]]) -> Result:
    """The result with its headline and blocks."""
    blocks: list[Block] = [
        TextBlock(text=_HONEST),
        figures.parts_by_layer(result.subjects[0]),
    ]
    if len(result.subjects) > 1:
        blocks.append(figures.compared(result.subjects))
    blocks += figures.norms(result.subjects)
    last = result.subjects[-1]
    if sketches[last.name]:
        blocks.append(figures.sketch(last, sketches[last.name]))
    if result.risk is not None:
        blocks.append(figures.risk(result.risk))
    if result.safety is not None:
        blocks += [safety.refusals(result.safety), *safety.tables(result.safety)]
    blocks += [_subjects(result), _layers(result)]
    one = result.subjects[0]
    lowest = one.layers[0]
    headline = [
        Headline(
            key="mir",
            label=f"MIR of {one.name}",
            value=one.mir_exact.value,
            low=one.mir_exact.low,
            high=one.mir_exact.high,
            better="low",
            help="Logarithm of the summed Fréchet distances of all layers but the input.",
        ),
        Headline(
            key="centroid",
            label=f"Distance of the centres, layer {lowest.layer}",
            value=lowest.centroid_l2_text_scaled,
            better="low",
            help="In mean lengths of a text token.",
        ),
        Headline(
            key="norm_ratio",
            label=f"Length of image over text tokens, layer {lowest.layer}",
            value=lowest.norm_ratio,
            help="1: they are as long as each other.",
        ),
    ]
    if result.safety is not None:
        headline += [
            Headline(
                key=f"refused_{own.condition.replace('-', '_')}",
                label=f"Refused harmful prompts, {own.condition}: {one.name}",
                **own.refused.model_dump(),
                format="percent",
                better="high",
            )
            for one in result.safety.subjects[:1]
            for own in one.conditions
            if own.condition in ("text-only", "blank", "image")
        ]
    title = f"Modality gap of {counted(len(result.subjects), 'subject')}"
    return result.shown(title, headline, blocks)


def _subjects(result: Result) -> Block:
    fast = any(one.mir_official_fast is not None for one in result.subjects)
    accurate = any(one.mir_official_accurate is not None for one in result.subjects)
    columns = [
        Column(key="name", label="Subject"),
        Column(key="mir", label="MIR, exact", format="number", better="low"),
        Column(key="low", label="Lower end", format="number"),
        Column(key="high", label="Upper end", format="number"),
        *([Column(key="fast", label="MIR, official fast", format="number")] if fast else []),
        *([Column(key="accurate", label="MIR, official accurate", format="number")] * accurate),
        Column(key="input", label="Fréchet distance, lowest layer", format="number", better="low"),
        Column(key="centroid", label="Distance of centres, scaled", format="number", better="low"),
        Column(key="ratio", label="Norm ratio", format="number"),
        Column(key="auc", label="AUC", format="number", help="0.5: not told apart."),
        Column(key="layers", label="Layers in MIR", format="integer"),
        Column(key="pairs", label="Pairs", format="integer"),
    ]
    rows = [
        {
            "name": one.name,
            "mir": one.mir_exact.value,
            "low": one.mir_exact.low,
            "high": one.mir_exact.high,
            "fast": one.mir_official_fast,
            "accurate": one.mir_official_accurate,
            "input": one.layers[0].fid,
            "centroid": one.layers[0].centroid_l2_text_scaled,
            "ratio": one.layers[0].norm_ratio,
            "auc": one.layers[0].auc,
            "layers": len(one.mir_exact.layers),
            "pairs": one.pairs,
        }
        for one in result.subjects
    ]
    return table("Subjects", columns, rows)


def _layers(result: Result) -> Block:
    columns = [
        Column(key="name", label="Subject"),
        Column(key="layer", label="Layer", format="integer"),
        Column(key="fid", label="Fréchet distance", format="number", better="low"),
        Column(key="centres", label="Centres", format="number", help="Squared distance."),
        Column(key="spread", label="Spread", format="number", help="What spreads do not share."),
        Column(key="null", label="By chance", format="number", help="95th percentile of the null."),
        Column(key="observed", label="Beside it", format="number", help="The distance as in it."),
        Column(key="ratio", label="Norm ratio", format="number"),
        Column(key="r", label="Image tokens", format="integer"),
        Column(key="s", label="Text tokens", format="integer"),
    ]
    rows = [_row(one, place) for one in result.subjects for place in range(len(one.layers))]
    return table("Layers", columns, rows, artifact=result.artifacts["layers.csv"])


def _row(one: GapOf, place: int) -> dict[str, object]:
    layer = one.layers[place]
    return {
        "name": one.name,
        "layer": layer.layer,
        "fid": layer.fid,
        "centres": layer.mean_sq,
        "spread": layer.spread,
        "null": None if layer.null is None else layer.null.high,
        "observed": None if layer.null is None else layer.null.observed,
        "ratio": layer.norm_ratio,
        "r": layer.r,
        "s": layer.s,
    }
