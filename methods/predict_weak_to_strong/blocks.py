"""What people see of a predict-weak-to-strong result."""

from __future__ import annotations

from methods.predict_weak_to_strong.result import Result, WeakModel
from methods.results import Block, Column, FigureBlock, Headline, TextBlock, counted, table

_SCORES = {
    "metric_op": "Operator norm",
    "metric_fro": "Normalised squared Frobenius norm",
    "label_projection": "Predicted gap",
}


def present(result: Result, figures: list[FigureBlock]) -> Result:
    """The result with its headline and blocks."""
    words = TextBlock(text=result.recommended.words)
    blocks: list[Block] = [words, _candidates(result), _strong(result), *figures]
    return result.shown(
        f"{counted(len(result.weak), 'weak supervisor')} for {result.strong.name}",
        _headline(result),
        blocks,
    )


def _headline(result: Result) -> list[Headline]:
    found = result.recommended
    best = next(model for model in result.weak if model.name == found.name)
    return [
        Headline(
            key="best",
            label="Best supervisor",
            value=found.name,
            help="The weak model whose labels should serve the strong one best.",
        ),
        Headline(
            key=found.ranked_by,
            label=_SCORES[found.ranked_by],
            value=getattr(best, found.ranked_by),
            better="low",
            help="The score that ranks: what the strong model has and this weak one lacks.",
        ),
        Headline(
            key="rank",
            label="Its worst plausible rank",
            value=None if best.rank_ci is None else best.rank_ci[1],
            format="integer",
            better="low",
            help="Upper end of the 90 % interval of its rank over half-samples of the rows; a dash "
            "where none were drawn.",
        ),
        Headline(
            key="ties",
            label="Others that may be as good",
            value=None if best.rank_ci is None else len(found.ties),
            format="integer",
            better="low",
            help="Candidates whose rank interval overlaps the best one's.",
        ),
        Headline(
            key="agreement_with_dof_w",
            label="Agreement with the effective dimension",
            value=found.agreement_with_dof_w,
            help="Kendall's tau, -1 to 1, between this ranking and the one by effective dimension.",
        ),
    ]


def _candidates(result: Result) -> Block:
    columns = [
        Column(key="rank", label="Rank", format="integer"),
        Column(key="name", label="Weak model"),
        Column(key="rank_low", label="Rank from", format="integer"),
        Column(key="rank_high", label="to", format="integer", help="90 % interval of the rank."),
        Column(key="metric_op", label="Operator norm", format="number", better="low"),
        Column(
            key="metric_fro",
            label="Squared Frobenius norm, normalised",
            format="number",
            better="low",
        ),
        Column(key="dof_w", label="Effective dimension", format="number", better="high"),
        Column(key="cka_linear", label="Linear CKA", format="number", better="high"),
    ]
    if result.n_labelled:
        columns += [
            Column(key="label_projection", label="Predicted gap", format="number", better="low"),
            Column(key="predicted_err_w2s", label="Predicted error", format="number", better="low"),
        ]
    columns.append(Column(key="status", label="Status"))
    ranked = sorted(result.weak, key=lambda model: model.rank)
    return table(
        "Weak models",
        columns,
        [_row(model) for model in ranked],
        sort="rank",
        help="Rank intervals are over half-samples of the rows; effective dimension and CKA are "
        "baselines to compare with.",
    )


def _row(model: WeakModel) -> dict[str, object]:
    low, high = model.rank_ci or (None, None)
    row = {name: getattr(model, name) for name in WeakModel.model_fields}
    return {**row, "rank_low": low, "rank_high": high}


def _strong(result: Result) -> Block:
    columns = [
        Column(key="name", label="Strong model"),
        Column(key="columns", label="Width", format="integer"),
        Column(key="rank_s", label="Directions kept", format="integer"),
        Column(key="dof_s", label="Effective dimension", format="number"),
        Column(key="kept_variance", label="Variance kept", format="percent"),
        Column(key="ceiling_error", label="Ceiling error", format="number", better="low"),
    ]
    return table("Strong model", columns, [result.strong])
