"""What people see of a select-subset result."""

from __future__ import annotations

from methods.results import (
    Block,
    Column,
    FigureBlock,
    Headline,
    ImagesBlock,
    SamplesBlock,
    TextBlock,
    table,
)
from methods.select_subset.result import Result
from methods.select_subset.training_blocks import losses_of_seeds, proof_table, proxy_blocks

#: Copies that are shown; the file has all.
_COPIES = 20


def present(
    result: Result, method: str, figures: list[FigureBlock], examples: SamplesBlock | None = None
) -> Result:
    """The result with its headline and blocks.

    Args:
        method: the method of the spec. examples: rows that were chosen and left.
    """
    blocks: list[Block] = []
    if result.proof is not None:
        blocks += [proof_table(result.proof), losses_of_seeds(result.proof)]
    blocks += [_counts(result), _files(result)]
    if result.duplicates is not None and result.duplicates.examples:
        blocks.append(_duplicates(result))
    if result.proxy is not None:
        blocks += proxy_blocks(result.proxy)
    if result.clusters is not None:
        blocks.append(_clusters(result))
    if result.per_group:
        blocks.append(_groups(result))
    if result.validation.bad_rows:
        blocks += [_problems(result), _bad_rows(result)]
    blocks += figures
    if examples is not None:
        blocks.append(examples)
    if (sheet := result.artifacts.get("contact_sheet")) is not None:
        blocks.append(
            ImagesBlock(
                title="Images of some clusters",
                caption="One row of images a cluster; chosen rows are framed.",
                artifact=sheet,
            )
        )
    return result.shown(
        f"{result.selected:,} of {result.candidates:,} rows, chosen by {method}",
        _headline(result),
        blocks,
    )


def _headline(result: Result) -> list[Headline]:
    headline = [
        Headline(key="selected", label="Rows chosen", value=result.selected, format="integer"),
        Headline(
            key="share",
            label="Share of the candidates",
            value=result.selected / result.candidates if result.candidates else None,
            format="percent",
        ),
        Headline(key="candidates", label="Candidates", value=result.candidates, format="integer"),
    ]
    if result.proof is not None:
        headline.append(
            Headline(
                key="gain",
                label="Held-out loss, random minus chosen",
                value=result.proof.difference.mean,
                low=result.proof.difference.low,
                high=result.proof.difference.high,
                unit="nats a token",
                better="high",
                help="Above 0 the choice teaches more than as many random rows.",
            )
        )
    if result.shortfall:
        headline.append(
            Headline(
                key="shortfall",
                label="Rows missing",
                value=result.shortfall,
                format="integer",
                better="low",
                help="Rows asked for that the method's rule could not give.",
            )
        )
    if result.clusters is not None:
        headline.append(
            Headline(key="clusters", label="Clusters", value=result.clusters.k, format="integer")
        )
    if result.validation.bad_rows:
        headline.append(
            Headline(
                key="bad_rows",
                label="Bad rows",
                value=result.validation.bad_rows,
                format="integer",
                better="low",
            )
        )
    # Six figures are shown at most.
    return headline[:6]


def _counts(result: Result) -> Block:
    """How the rows of the input became the choice."""
    lines: list[tuple[str, float | None, str]] = [
        ("Rows of the input", result.validation.rows, ""),
        ("Bad rows", result.validation.bad_rows, "left out"),
    ]
    if (copies := result.duplicates) is not None:
        about = "left out" if copies.dropped else "not left out"
        lines += [
            ("Exact copies of other rows", copies.exact, about),
            ("Near copies of other rows", copies.near, about),
            (
                "Chosen rows that repeat others",
                copies.chosen,
                f"at random {copies.chosen_at_random}",
            ),
        ]
    if result.proof is not None:
        lines.append(
            ("Rows held out for the proof", result.proof.asked, "and all that repeat them")
        )
    text_only = result.validation.text_only_rows
    if text_only:
        about = f"of {text_only:,} among the candidates"
        lines.append(("Chosen rows without an image", result.validation.text_only_selected, about))
    lines += [
        ("Candidates", result.candidates, ""),
        ("Rows asked for", result.requested, ""),
        ("Rows chosen", result.selected, ""),
        ("Outside the method's own rule", result.filled, "they fill the budget"),
    ]
    columns = [
        Column(key="what", label="What"),
        Column(key="rows", label="Rows", format="integer"),
        Column(key="about", label="Remark"),
    ]
    rows = [{"what": what, "rows": count, "about": about} for what, count, about in lines if count]
    help_ = ""
    if (kept := result.stability) is not None:
        help_ = (
            f"Other seeds choose {kept.share:.0%} of the chosen rows too (the least of "
            f"{kept.seeds}: {kept.least:.0%}); by chance it would be {kept.by_chance:.0%}."
        )
    return table("From the input to the choice", columns, rows, help=help_)


def _duplicates(result: Result) -> Block:
    copies = result.duplicates
    assert copies is not None
    columns = [
        Column(key="id", label="Row"),
        Column(key="of_id", label="repeats"),
        Column(key="how", label="How"),
        Column(key="similarity", label="Similarity", format="number"),
    ]
    return table(
        "Rows that repeat others",
        columns,
        copies.examples[:_COPIES],
        help=f"Looked for: {'; '.join(copies.looked_for)}. {copies.groups:,} rows are repeated, "
        f"the most often {copies.largest_group - 1:,} times.",
        total=copies.exact + copies.near,
        artifact=result.artifacts.get("duplicates"),
    )


def _files(result: Result) -> Block:
    rows: list[dict[str, object]] = [
        {"what": what, **saved.model_dump(include={"name", "size", "id"})}
        for what, saved in result.artifacts.items()
    ]
    columns = [
        Column(key="what", label="File"),
        Column(key="name", label="Name"),
        Column(key="size", label="Size", format="bytes"),
        Column(key="id", label="Id", help="Any job takes it as an input."),
    ]
    if not rows:
        return TextBlock(text="No files were asked for.")
    return table("Files", columns, rows)


def _clusters(result: Result) -> Block:
    clusters = result.clusters
    assert clusters is not None
    names = ("minimum", "quartile_1", "median", "quartile_3", "maximum")
    columns = [
        Column(key="of", label="Rows"),
        *(Column(key=name, label=name.replace("_", " "), format="number") for name in names),
    ]
    rows = [
        {"of": "in a cluster", **dict(zip(names, clusters.size_quantiles, strict=True))},
        {"of": "taken from it", **dict(zip(names, clusters.quota_quantiles, strict=True))},
    ]
    left = f" {clusters.dropped} are too small to count." if clusters.dropped else ""
    return table("Sizes of clusters", columns, rows, help=f"{clusters.k} clusters have rows.{left}")


def _groups(result: Result) -> Block:
    rows = [
        {"group": name, **count.model_dump()} for name, count in (result.per_group or {}).items()
    ]
    columns = [
        Column(key="group", label="Group"),
        Column(key="rows", label="Candidates", format="integer"),
        Column(key="selected", label="Chosen", format="integer"),
    ]
    return table("Groups", columns, rows)


def _problems(result: Result) -> Block:
    rows = [{"problem": name, "rows": n} for name, n in result.validation.problems.items()]
    columns = [
        Column(key="problem", label="Problem"),
        Column(key="rows", label="Rows", format="integer"),
    ]
    return table("Bad rows by problem", columns, rows)


def _bad_rows(result: Result) -> Block:
    columns = [
        Column(key="row", label="Row", format="integer", help="Number in the input, from 0."),
        Column(key="id", label="Id"),
        Column(key="field", label="Field"),
        Column(key="problem", label="Problem"),
    ]
    return table(
        "First bad rows",
        columns,
        result.validation.examples,
        total=result.validation.bad_rows,
        artifact=result.artifacts.get("bad_rows"),
    )
