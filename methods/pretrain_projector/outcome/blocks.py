"""What people see of a pretrain-projector result."""

from __future__ import annotations

from typing import Any

from methods.measure_modality_gap.safety.asking import Answered
from methods.measure_modality_gap.showing import safety
from methods.pretrain_projector.outcome import figures
from methods.pretrain_projector.outcome.comparing import Trained
from methods.pretrain_projector.result import Result
from methods.results import Block, Column, Headline, TextBlock, counted, table

_HONEST = (
    "A smaller gap is no proof of safety, and refusals behind blank or noisy images stay erratic "
    "from seed to seed. What counts is the table of refusals, and that captions are told better "
    "with their own images than with others."
)


def present(
    result: Result,
    trained: list[Trained],
    said: Answered | None,
    history: dict[str, list[dict[str, Any]]],
) -> Result:
    """The result with its headline and blocks."""
    blocks: list[Block] = [TextBlock(text=_HONEST)]
    if said is not None:
        blocks += [safety.refusals(said.found), figures.trade_off(result)]
    blocks += [figures.gap(trained), *figures.steps(trained, history), _runs(result)]
    if result.comparison:
        blocks += [_comparison(result), _weights(result)]
    if said is not None:
        blocks += safety.tables(said.found)
    title = f"{counted(len(result.runs), 'projector')} of {counted(result.captions, 'caption')}"
    return result.shown(title, _headline(result), blocks)


def _headline(result: Result) -> list[Headline]:
    first = result.runs[0]
    found = [
        Headline(
            key="chosen",
            label="Chosen weight of the penalty",
            value=result.chosen,
            help="Largest gain of refusals whose caption loss rises by no more than is allowed.",
        )
    ]
    if result.weights:
        named = [one for one in result.weights if one.weight == result.chosen]
        best = named[0] if named else result.weights[0]
        found.append(
            Headline(
                key="caption_loss_rise",
                label=f"Rise of caption loss, weight {best.weight:g}",
                **best.caption_loss_rise.model_dump(),
                unit="nats",
                better="low",
                help="In nats a token, paired over held-out captions.",
            )
        )
        if best.mean_gain is not None:
            found.append(
                Headline(
                    key="refusal_gain",
                    label=f"More refusals behind images, weight {best.weight:g}",
                    **best.mean_gain.model_dump(),
                    format="percent",
                    better="high",
                    help="Mean over the conditions with an image, against the baseline.",
                )
            )
    found.append(
        Headline(
            key="caption_loss",
            label=f"Held-out caption loss: {first.name}",
            **first.caption_loss.model_dump(),
            unit="nats",
            help="In nats a token.",
            better="low",
        )
    )
    return found


def _runs(result: Result) -> Block:
    columns = [
        Column(key="name", label="Run"),
        Column(key="caption_loss", label="Caption loss", format="number", better="low"),
        Column(
            key="caption_loss_shuffled",
            label="Behind other images",
            format="number",
            help="The same as the caption loss: the projector carries no information.",
        ),
        Column(key="exact_match", label="Exact captions", format="percent", better="high"),
        Column(key="fid", label="Distance at the input", format="number", better="low"),
        Column(key="mir", label="MIR, exact", format="number", better="low"),
        Column(key="norm_ratio", label="Norm ratio", format="number"),
        Column(key="variance_ratio", label="Spread ratio", format="number"),
        Column(key="alpha", label="Alpha", format="number"),
    ]
    rows = [
        {column.key: getattr(one, column.key, None) for column in columns} | {"fid": one.input.fid}
        for one in result.runs
    ]
    return table("Projectors", columns, rows)


def _comparison(result: Result) -> Block:
    columns = [
        Column(key="name", label="Run"),
        Column(key="caption_loss_rise", label="Caption loss rises by", format="number"),
        Column(key="fid_fall", label="Distance falls to one in", format="number"),
        Column(key="condition", label="Before the prompt"),
        Column(key="difference", label="More refusals", format="percent", better="high"),
        Column(key="exact_p", label="p, exact", format="number", help="McNemar's test."),
    ]
    rows: list[dict[str, object]] = []
    for one in result.comparison:
        shared = {
            "name": one.name,
            "caption_loss_rise": one.caption_loss_rise,
            "fid_fall": one.fid_fall,
        }
        empty = {"condition": None, "difference": None, "exact_p": None}
        rows += [
            shared
            | {
                "condition": gain.condition,
                "difference": gain.test.difference,
                "exact_p": gain.test.exact_p,
            }
            for gain in one.gains
        ] or [shared | empty]
    return table("Against the baseline of the same seed", columns, rows)


def _weights(result: Result) -> Block:
    columns = [
        Column(key="weight", label="Weight", format="number"),
        Column(key="seeds", label="Seeds", format="integer"),
        Column(key="caption_loss_rise", label="Caption loss rises by", format="number"),
        Column(key="mean_gain", label="More refusals behind images", format="percent"),
    ]
    return table("Weights, over seeds", columns, result.weights)
