"""What people see of a synthesize-text result."""

from __future__ import annotations

import numpy as np

from methods.results import Block, Column, Headline, TableBlock, TextBlock, counted, table
from methods.synthesize_text import figures
from methods.synthesize_text.result import Result

_HOW = {
    "lm-sample": "Texts as the generator drew them (lm-sample).",
    "lm-select": "Chosen among texts that the generator drew (lm-select).",
    "gradmm": "Optimised towards the gradient of the real texts (gradmm, corrected).",
    "gradmm-reference": "Optimised as published (gradmm-reference).",
}


def present(result: Result, drawing: figures.Drawing) -> Result:
    """The result with its headline and blocks."""
    found = [
        TextBlock(
            text=f"{_HOW[result.method]} Compare them with the controls beside them: near in "
            "gradient is not the same as good to train on."
        ),
        _labels(result),
        _distances(result),
        *([_evaluation(result), _differences(result)] if result.evaluation else []),
        *_leakage(result),
        *_privacy(result),
        _diversity(result),
        _preview(result),
    ]
    drawn = figures.draw(result, drawing)
    order: list[Block] = [*found[:3], *drawn, *found[3:]]
    kept = sum(label.kept for label in result.labels)
    title = f"{counted(kept, 'text')} for {counted(len(result.labels), 'label')} by {result.method}"
    return result.shown(title, _headline(result), order)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _headline(result: Result) -> list[Headline]:
    labels = result.labels
    found = [
        Headline(
            key="kept",
            label="Texts kept",
            value=sum(label.kept for label in labels),
            format="integer",
        ),
        Headline(
            key="distance",
            label="Distance to the target",
            value=_mean([label.distance.kept for label in labels]),
            better="low",
            help="1 - cosine of the kept texts' mean gradient and the target, mean over labels.",
        ),
        Headline(
            key="distance_unselected",
            label="The same of unselected texts",
            value=_mean([label.distance.unselected for label in labels]),
            help="Drawn texts as they came: the control.",
        ),
        Headline(
            key="agreement",
            label="Given their label by the model",
            value=_mean([label.agreement_kept for label in labels]),
            format="percent",
            better="high",
            help="Share of the kept texts, mean over labels.",
        ),
    ]
    if result.leakage is not None:
        auc = result.leakage.membership_auc
        found.append(
            Headline(
                key="membership_auc",
                label="Real texts told by the kept ones",
                value=auc.value,
                low=auc.low,
                high=auc.high,
                better="low",
                help="0.5: texts aimed at cannot be told from held-out ones. 95 % interval.",
            )
        )
    if result.privacy is not None:
        found.append(
            Headline(
                key="epsilon_total",
                label="Epsilon so far",
                value=result.privacy.epsilon_total,
                better="low",
                help="Of all releases of these texts by this owner, composed by zCDP.",
            )
        )
    for one in result.differences:
        if one.than == "unselected":
            found.append(
                Headline(
                    key="gain",
                    label="Accuracy over unselected texts",
                    value=one.accuracy.value,
                    low=one.accuracy.low,
                    high=one.accuracy.high,
                    better="high",
                    help="After fine-tuning on each, on held-out real texts. 95 % interval.",
                )
            )
    return found


def _labels(result: Result) -> TableBlock:
    columns = [
        Column(key="name", label="Label"),
        Column(key="real", label="Real texts aimed at", format="integer"),
        Column(key="drawn", label="Made", format="integer"),
        Column(key="kept", label="Kept", format="integer"),
        Column(key="dropped", label="Dropped by"),
        Column(
            key="contrast",
            label="Contrast",
            format="number",
            help="Below 1.2 the gradient hardly tells the labels apart.",
        ),
        Column(
            key="agreement",
            label="Agreement, all",
            format="percent",
            help="Share to which the model itself gives the label.",
        ),
        Column(key="agreement_kept", label="Agreement, kept", format="percent"),
        Column(key="log_loss", label="Log-loss", format="number", help="Nats a token."),
        Column(key="held_out_log_loss", label="Log-loss, real", format="number"),
    ]
    rows = [
        {
            **{name: getattr(label, name) for name in type(label).model_fields},
            "dropped": ", ".join(f"{why} {n:,}" for why, n in label.dropped_by.items()) or "none",
        }
        for label in result.labels
    ]
    return table("What was made", columns, rows)


def _distances(result: Result) -> TableBlock:
    sets = {
        "kept": "Kept",
        "unselected": "Unselected",
        "random_vocabulary": "Random tokens",
        "noise_target": "Aimed at noise",
        "held_out_real": "Held-out real",
    }
    columns = [
        Column(key="name", label="Label"),
        Column(key="of", label="Distance of"),
        *(
            Column(key=key, label=label, format="number", better="low")
            for key, label in sets.items()
        ),
    ]
    rows = [
        {"name": label.name, "of": of, **{key: getattr(values, key) for key in sets}}
        for label in result.labels
        for of, values in (
            ("the set together", label.distance),
            ("one text, the median", label.median_distance),
        )
    ]
    return table(
        "Distance to the target, beside controls",
        columns,
        rows,
        help="1 - cosine of gradients of the model's head, from 0 to 2.",
    )


def _evaluation(result: Result) -> TableBlock:
    columns = [
        Column(key="arm", label="Fine-tuned on"),
        Column(key="n", label="Texts", format="integer"),
        Column(key="accuracy", label="Accuracy", format="percent", better="high"),
        Column(key="auc", label="AUC", format="number", better="high"),
    ]
    return table(
        "Fine-tuned on each set, tested on held-out real texts",
        columns,
        result.evaluation,
        help="Mean over seeds, with the 95 % interval for new seeds and texts.",
    )


def _differences(result: Result) -> TableBlock:
    columns = [
        Column(key="than", label="Kept texts against"),
        Column(key="accuracy", label="Accuracy, difference", format="percent", better="high"),
        Column(key="verdict", label="Verdict"),
    ]
    return table(
        "Kept texts against other sets",
        columns,
        result.differences,
        help="On the same held-out texts and seeds, with a 95 % interval. An interval with 0 in it "
        "tells nothing apart.",
    )


def _leakage(result: Result) -> list[Block]:
    found = result.leakage
    if found is None:
        return []
    columns = [
        Column(key="against", label="Against"),
        Column(key="texts", label="Real texts", format="integer"),
        Column(key="exact", label="Copied whole", format="integer", better="low"),
        Column(key="longest_run_mean", label="Longest run, mean", unit="words", format="number"),
        Column(key="longest_run_max", label="Longest of all", unit="words", format="integer"),
        Column(key="trigram_share", label="Shared runs of 3 words", format="percent"),
        Column(key="ngram8_share", label="Shared runs of 8 words", format="percent"),
    ]
    rows = [
        {"against": name, **half.model_dump()}
        for name, half in (
            ("texts aimed at", found.used),
            ("held-out texts (control)", found.control),
        )
    ]
    areas = [
        {
            "question": "Are texts aimed at copied more than held-out ones?",
            "auc": found.copying_auc,
        },
        {
            "question": "Do the kept texts tell which real texts were aimed at?",
            "auc": found.membership_auc,
        },
    ]
    return [
        table(
            "What kept texts share with real ones",
            columns,
            rows,
            help="Synthetic, not anonymised. What is shared with held-out texts is coincidence.",
        ),
        table(
            "Copying and membership",
            [
                Column(key="question", label="Question"),
                Column(key="auc", label="AUC", format="number", help="0.5: no, 1: always."),
            ],
            areas,
        ),
    ]


def _privacy(result: Result) -> list[Block]:
    found = result.privacy
    if found is None:
        return []
    columns = [
        Column(key="label", label="Label"),
        Column(key="n", label="Texts", format="integer"),
        Column(key="clip", label="Clipped to", format="number"),
        Column(key="sensitivity", label="Sensitivity", format="number"),
        Column(key="sigma", label="Noise", format="number", help="Standard deviation."),
        Column(
            key="expected_cosine",
            label="Expected cosine",
            format="number",
            better="high",
            help="Of the noisy target to the exact one.",
        ),
        Column(key="reused", label="Released before"),
        Column(key="releases", label="Releases so far", format="integer"),
        Column(key="epsilon_total", label="Epsilon so far", format="number", better="low"),
    ]
    return [
        TextBlock(text=found.statement),
        table("Noisy targets", columns, found.releases, help=found.mechanism),
    ]


def _diversity(result: Result) -> TableBlock:
    columns = [
        Column(key="distinct_1", label="Different words", format="percent"),
        Column(key="distinct_2", label="Different pairs", format="percent"),
        Column(
            key="self_bleu4",
            label="Self-BLEU",
            format="number",
            better="low",
            help="1: all texts of a label are alike.",
        ),
        Column(
            key="embedding_spread",
            label="Spread",
            format="number",
            help="Mean 1 - cosine of mean hidden states.",
        ),
        Column(key="mean_words", label="Words", format="number", help="Of a text, mean."),
    ]
    return table("How much kept texts differ", columns, [result.diversity])


def _preview(result: Result) -> TableBlock:
    columns = [
        Column(key="label", label="Label"),
        Column(key="text", label="Text"),
        Column(key="distance", label="Distance", format="number"),
        Column(key="log_loss", label="Log-loss", format="number"),
    ]
    return table(
        "Some of the kept texts",
        columns,
        result.preview,
        total=sum(label.kept for label in result.labels),
        artifact=result.artifacts["texts.jsonl"],
    )
