"""What people see of the trainings of a job: its proof and its proxy."""

from __future__ import annotations

from methods.results import NEUTRAL, Block, Column, FigureBlock, Interval, axis, chart, table
from methods.select_subset.result import ProxyReport, SelectionProof

_NAMES = {"chosen": "the choice", "random": "random rows", "all": "all candidates"}


def proof_table(proof: SelectionProof) -> Block:
    """The sets of a proof side by side, and what follows in words."""
    columns = [
        Column(key="name", label="Trained on"),
        Column(key="rows", label="Rows", format="integer"),
        Column(
            key="loss",
            label="Held-out loss",
            unit="nats a token",
            format="number",
            better="low",
            help="Mean with its 95 % interval over seeds.",
        ),
        Column(
            key="correct",
            label="Answers right",
            format="percent",
            better="high",
            help="Rows whose answer tokens are all the likeliest ones.",
        ),
    ]
    rows = [
        {
            "name": _NAMES[one.name],
            "rows": one.rows,
            "loss": Interval(value=one.loss, low=one.low, high=one.high),
            "correct": one.correct,
        }
        for one in proof.sets
    ]
    ends = proof.difference
    about = "" if ends.low is None else f" [{ends.low:.3f}, {ends.high:.3f}]"
    words = {
        "better": "the choice teaches more than random rows",
        "worse": "the choice teaches less than random rows",
        "cannot be told apart": "the choice and random rows cannot be told apart",
        "unknown": "one seed says nothing of the difference",
    }[proof.verdict]
    return table(
        "What the choice teaches",
        columns,
        rows,
        help=f"The same model, {proof.steps:,} steps on each set ({proof.epochs:g} passes over the "
        f"choice), asked about {proof.asked:,} rows that it has not seen. Random minus chosen, "
        f"seed by seed: {ends.mean:.3f}{about}: {words}. As many passes take "
        f"{_hours(proof.hours_all)} over all candidates on this {proof.device.upper()} and "
        f"{_hours(proof.hours_chosen)} over the choice, which saves {_hours(proof.hours_saved)}.",
    )


def _hours(value: float) -> str:
    """A time in the unit that people would say it in."""
    if value >= 1:
        return f"{value:.1f} h"
    return f"{value * 60:.1f} min" if value * 60 >= 1 else f"{value * 3600:.1f} s"


def losses_of_seeds(proof: SelectionProof) -> FigureBlock:
    """Every training of a proof."""
    rows = [
        {"set": _NAMES[one.name], "loss": loss, "seed": seed}
        for one in proof.sets
        for seed, loss in enumerate(one.losses)
    ]
    order = [_NAMES[one.name] for one in proof.sets]
    return FigureBlock(
        title="Held-out loss of each seed",
        caption="Every point is a training. Lines join the trainings of one seed.",
        vega_lite=chart(
            rows,
            layer=[
                {
                    "mark": {"type": "line", "color": NEUTRAL, "opacity": 0.5},
                    "encoding": {"detail": {"field": "seed", "type": "nominal"}},
                },
                {"mark": {"type": "point", "filled": True, "size": 60, "tooltip": True}},
            ],
            encoding={
                "x": {
                    "field": "set",
                    "type": "nominal",
                    "sort": order,
                    "title": None,
                    "axis": {"labelAngle": 0},
                },
                "y": axis("loss", "held-out loss, nats a token", zero=False),
            },
        ),
    )


def proxy_blocks(proxy: ProxyReport) -> list[Block]:
    """Its losses, and how it reads rows."""
    found: list[Block] = []
    if len(proxy.losses) > 1:
        rows = [
            {"step": step, "loss": loss}
            for step, loss in zip(proxy.checkpoint_steps, proxy.losses, strict=True)
        ]
        found.append(
            FigureBlock(
                title="What the proxy learned",
                caption="Mean loss of the steps up to each checkpoint; it should fall.",
                vega_lite=chart(
                    rows,
                    mark={"type": "line", "point": True, "tooltip": True},
                    encoding={"x": axis("step", "step"), "y": axis("loss", "loss, nats a token")},
                ),
            )
        )
    if proxy.preview:
        lines = [
            {
                "row": one.row,
                "learnt": "yes" if piece.learnt else "no",
                "text": piece.text,
            }
            for one in proxy.preview
            for piece in one.pieces
        ]
        columns = [
            Column(key="row", label="Row", format="integer"),
            Column(key="learnt", label="Learnt"),
            Column(key="text", label="Text as the model reads it"),
        ]
        help_ = "The first rows; the proxy learns to say what is marked so."
        found.append(table("What is learnt of a row", columns, lines, help=help_))
    return found
