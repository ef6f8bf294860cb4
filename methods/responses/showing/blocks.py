"""Tables of shares of responses, for every job that has them."""

from __future__ import annotations

from collections.abc import Sequence

from methods.responses.schema import GatesHeld, JudgeUsed, PairedTests, Rates, ResponseSample
from methods.results import Block, Cell, Column, Headline, TableBlock, table

RATE_COLUMNS = [
    Column(
        key="harmful_rate",
        label="Unsafe",
        format="percent",
        better="low",
        help="Of judged responses to harmful prompts.",
    ),
    Column(
        key="harmful_rate_worst",
        label="Unsafe at worst",
        format="percent",
        better="low",
        help="With all that could not be judged as unsafe; the gate looks at this.",
    ),
    Column(
        key="over_refusal",
        label="Over-refusal",
        format="percent",
        better="low",
        help="Of harmless prompts.",
    ),
    Column(key="accuracy", label="Accuracy", format="percent", better="high"),
    Column(
        key="refusal_rate", label="Refused harmful prompts", format="percent", help="By the rule."
    ),
    Column(
        key="false_refusal_on_reasoning",
        label="Refused problems",
        format="percent",
        better="low",
    ),
    Column(key="truncated", label="Cut", format="percent", better="low"),
    Column(key="mean_tokens", label="Tokens", format="number", help="Of a response, mean."),
    Column(key="n_invalid", label="Not judged", format="integer"),
]


def rate_cells(rates: Rates) -> dict[str, Cell]:
    """The cells of `RATE_COLUMNS`."""
    return {column.key: getattr(rates, column.key) for column in RATE_COLUMNS}


def gate_cell(held: GatesHeld) -> str:
    """Gates in words."""
    names = {"harmful": "harmful", "accuracy": "accuracy", "over_refusal": "over-refusal"}
    found = {
        what: [label for name, label in names.items() if getattr(held, name) is value]
        for what, value in (("missed", False), ("not known", None))
    }
    said = [f"{what}: {', '.join(labels)}" for what, labels in found.items() if labels]
    return "; ".join(said) or "all held"


def paired_table(models: Sequence[tuple[str, PairedTests]]) -> list[Block]:
    """Paired tests of models, by name; none where no prompts are common."""
    columns = [
        Column(key="name", label="Model"),
        Column(key="what", label="Share of"),
        Column(key="difference", label="After less before", format="percent"),
        Column(key="only_before", label="Before only", format="integer"),
        Column(key="only_after", label="After only", format="integer"),
        Column(key="n", label="Pairs", format="integer"),
        Column(key="exact_p", label="p, exact", format="number"),
        Column(key="mid_p", label="p, mid", format="number"),
    ]
    rows = [
        {"name": name, "what": what, **{c.key: getattr(test, c.key) for c in columns[2:]}}
        for name, tests in models
        for what, test in (
            ("unsafe responses", tests.harmful),
            ("right answers", tests.accuracy),
            ("refused harmless prompts", tests.over_refusal),
        )
        if test is not None
    ]
    if not rows:
        return []
    found = table(
        "Before and after, on the same prompts",
        columns,
        rows,
        help="McNemar's exact test; differences with their 95 % intervals. An interval with 0 in "
        "it tells nothing apart.",
    )
    return [found]


def samples_table(samples: Sequence[ResponseSample]) -> list[Block]:
    """Prompts with both responses."""
    if not samples:
        return []
    columns = [
        Column(key="set", label="Set"),
        Column(key="id", label="Prompt"),
        Column(key="prompt", label="Text"),
        Column(key="before", label="Before"),
        Column(key="before_outcome", label="Counts as"),
        Column(key="after", label="After"),
        Column(key="after_outcome", label="Counts as, after"),
    ]
    return [
        table(
            "Some prompts, before and after",
            columns,
            samples,
            help="First those whose outcome changed. Texts of harmful prompts are shown on request "
            "only (show_harmful); responses.jsonl has them.",
        )
    ]


def judge_table(judge: JudgeUsed) -> TableBlock:
    """What judged."""
    columns = [
        Column(key="kind", label="Judge"),
        Column(key="name", label="Name"),
        Column(key="version", label="Rule list"),
        Column(
            key="agreement_with_rule",
            label="Agrees with the rule",
            format="percent",
            help="On which responses judge and rule say the same.",
        ),
        Column(key="n_judged", label="Judged", format="integer"),
        Column(key="n_invalid", label="Not readable", format="integer"),
    ]
    return table("What judged the responses to harmful prompts", columns, [judge])


def rate_headlines(rates: Rates) -> list[Headline]:
    """The three shares that a verdict rests on."""
    labels = {
        "harmful_rate": ("Unsafe responses", "low", "Of judged responses to harmful prompts."),
        "over_refusal": ("Refused harmless prompts", "low", "By the rule."),
        "accuracy": ("Problems answered right", "high", "By the extractor."),
    }
    found = []
    for key, (label, better, text) in labels.items():
        one = getattr(rates, key)
        ends = one.model_dump() if one is not None else {"value": None}
        found.append(
            Headline(key=key, label=label, **ends, format="percent", better=better, help=text)
        )
    return found
