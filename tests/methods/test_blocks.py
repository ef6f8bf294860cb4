"""What every job type says about its own result: headline, tables, warnings, figures."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from methods.local import LocalContext
from methods.registry import load_registry
from methods.results import (
    MAX_HEADLINE_BYTES,
    Column,
    FigureBlock,
    Headline,
    ImagesBlock,
    Interval,
    JobResult,
    Provenance,
    Sample,
    SamplesBlock,
    TableBlock,
    WarningBlock,
    table,
)
from tests import gallery

PUBLIC = [
    job
    for job in load_registry().values()
    if not job.internal and not job.runner.startswith("methods.toy")
]


def test_the_gallery_has_every_job_type() -> None:
    assert set(gallery.SPECS) == {job.name for job in PUBLIC}
    assert all(issubclass(job.result, JobResult) for job in PUBLIC)


@pytest.fixture(params=list(gallery.SPECS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from leaves(part)
    elif isinstance(value, list):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def test_a_headline_a_table_and_every_warning(name: str) -> None:
    found, _ = gallery.result(name)
    assert found.title
    assert 1 <= len(found.headline) <= 6
    assert any(isinstance(block, TableBlock) and block.rows for block in found.blocks)
    assert [b.text for b in found.blocks if isinstance(b, WarningBlock)] == found.warnings
    nested = [w for key, w in pairs(found.model_dump(mode="json")) if key == "warnings" for w in w]
    assert all(any(text in shown for shown in found.warnings) for text in nested)


def pairs(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key, part
            yield from pairs(part)
    elif isinstance(value, list):
        for part in value:
            yield from pairs(part)


def test_every_cell_is_found_in_the_result(name: str) -> None:
    found, _ = gallery.result(name)
    shown = {"title", "headline", "blocks", "figures"}
    document = found.model_dump(mode="json")
    spec = list(leaves({k: v for k, v in document.items() if k not in shown}))
    known = {value for value in spec if isinstance(value, int | float | str)}
    numbers = 0
    for block in found.blocks:
        if not isinstance(block, TableBlock):
            continue
        keys = {column.key for column in block.columns}
        for row in block.rows:
            assert set(row) == keys
            for value in row.values():
                parts = (
                    [value.value, value.low, value.high] if isinstance(value, Interval) else [value]
                )
                for part in parts:
                    if isinstance(part, float | int) and not isinstance(part, bool):
                        assert part in known, (block.title, row)
                        numbers += 1
    assert numbers > 0


def test_figures_have_captions_and_are_there_twice_for_older_clients(name: str) -> None:
    found, _ = gallery.result(name)
    drawn = [block for block in found.blocks if isinstance(block, FigureBlock)]
    assert drawn
    assert all(block.caption.endswith(".") and not block.caption[0].islower() for block in drawn)
    assert [(f.title, f.vega_lite) for f in found.figures] == [
        (f.title, f.vega_lite) for f in drawn
    ]


def test_no_figure_is_too_wide_to_be_drawn(name: str) -> None:
    """Vega-Lite draws nothing where a chart of many panels takes its width from the page."""
    for block in gallery.result(name)[0].blocks:
        if isinstance(block, FigureBlock) and block.vega_lite.get("width") == "container":
            facets = {"row", "column", "facet"}
            assert not facets & {*block.vega_lite, *block.vega_lite.get("encoding", {})}, (
                block.title
            )


def test_pictures_and_samples_can_be_read(name: str) -> None:
    found, folder = gallery.result(name)
    for block in found.blocks:
        if isinstance(block, ImagesBlock):
            assert (folder / block.artifact.id).read_bytes().startswith(b"\x89PNG")
        if isinstance(block, SamplesBlock):
            if block.artifact is not None:
                lines = (folder / block.artifact.id).read_bytes().splitlines()
                samples = [Sample.model_validate_json(line) for line in lines]
            else:
                samples = block.samples or []
            assert len(samples) == block.total > 0
            keys = {column.key for column in block.columns}
            assert all(keys <= set(sample.values) for sample in samples)
            assert (block.sort or "").removeprefix("-") in keys


def test_results_fit_the_published_schema_and_come_back_unchanged(name: str) -> None:
    found, _ = gallery.result(name)
    job_type = load_registry()[name]
    document = json.loads(found.model_dump_json())
    schema = job_type.result.model_json_schema(mode="serialization")
    jsonschema.Draft202012Validator(schema).validate(document)
    assert {"headline", "blocks"} <= set(schema["properties"])
    again = job_type.result.model_validate(document)
    assert json.loads(again.model_dump_json()) == document


def test_the_samples_of_an_item_are_grouped_by_meaning() -> None:
    job_type = load_registry()["score-hallucination"]
    spec = job_type.spec.model_validate(
        {
            "items": [
                {
                    "id": "au",
                    "prompt": "Capital of Australia?",
                    "responses": [{"text": t} for t in ("Canberra", "Sydney", "canberra")],
                    "answer": {"text": "Canberra"},
                    "label": 0,
                }
            ]
        }
    )
    found = job_type.load_runner()(spec, LocalContext(Path(tempfile.mkdtemp()), spec))
    assert isinstance(found, JobResult)
    [block] = [block for block in found.blocks if isinstance(block, SamplesBlock)]
    [sample] = block.samples or []
    assert (sample.id, sample.verdict, sample.values["meanings"]) == ("au", "right", 2)
    assert [len(group.texts) for group in sample.groups] == [2, 1]
    assert [one.text for one in sample.groups[1].texts] == ["Sydney"]
    # The isolated answer adds most to SNNE.
    assert sample.groups[1].texts[0].value == max(
        one.value or 0 for group in sample.groups for one in group.texts
    )


class Plain(JobResult):
    """A result with nothing of its own."""


PROVENANCE = Provenance(method="plain/1", seed=0, versions={})


def plain(**fields: Any) -> Plain:
    return Plain(provenance=PROVENANCE, **fields)


def test_a_headline_that_is_too_large_or_doubled_is_refused() -> None:
    figure = Headline(key="a", label="A", value=1)
    with pytest.raises(ValidationError, match="at most 6"):
        plain(headline=[figure.model_copy(update={"key": f"a{k}"}) for k in range(7)])
    with pytest.raises(ValidationError, match="occurs twice"):
        plain(headline=[figure, figure])
    large = [Headline(key=f"a{k}", label="A", value=1, help="ü" * 400) for k in range(6)]
    assert len(large) * 400 * 2 > MAX_HEADLINE_BYTES
    with pytest.raises(ValidationError, match="the limit is 4096"):
        plain(headline=large)


def test_long_names_are_cut_and_fail_nothing() -> None:
    figure = Headline(key="a", label="x" * 500, value="y" * 500)
    assert (len(figure.label), len(str(figure.value))) == (120, 200)
    rows = table("T", [Column(key="a", label="A")], [{"a": "z" * 5000}])
    shown = plain().shown("t" * 500, [figure], [rows])
    assert len(shown.title) == 200
    assert shown.title.endswith("…")
    assert Plain.model_validate(shown.model_dump()) == shown


def test_a_warning_that_no_block_shows_is_refused() -> None:
    rows = table("T", [Column(key="a", label="A")], [{"a": 1}])
    with pytest.raises(ValidationError, match="no block shows"):
        plain(warnings=["beware"], blocks=[rows])
    shown = plain(warnings=["beware"]).shown("T", [], [rows])
    assert [block.kind for block in shown.blocks] == ["warning", "table"]


def test_a_long_table_is_cut_and_says_so() -> None:
    found = table("T", [Column(key="a", label="A")], [{"a": k} for k in range(500)])
    assert (len(found.rows), found.total) == (200, 500)


def headline(name: str) -> dict[str, Any]:
    return {figure.key: figure for figure in gallery.result(name)[0].headline}


def test_headlines_are_the_figures_of_the_result() -> None:
    """By other ways than the methods take."""
    scoring, _ = gallery.result("score-hallucination")
    summary = scoring.model_dump()["summary"]
    best = max(
        (found["evaluation"]["auroc"]["value"], name) for name, found in summary["scorers"].items()
    )
    shown = headline("score-hallucination")
    assert (shown["auroc"].value, shown["auroc"].label) == (best[0], f"AUROC of {best[1]}")
    items = [len(sample.values) and sample.values["meanings"] for sample in _samples(scoring)]
    assert shown["disagreeing"].value == sum(n > 1 for n in items) / len(items)

    hardness = gallery.result("score-task-hardness")[0].model_dump()["datasets"]
    hardest = max(hardness, key=lambda one: one["hardness"] / one["dim"])
    shown = headline("score-task-hardness")
    assert shown["hardest"].value == hardest["name"]
    assert shown["hardness_per_dim"].value == hardest["hardness"] / hardest["dim"]
    low, high = shown["hardness_per_dim"].low, shown["hardness_per_dim"].high
    assert low <= shown["hardness_per_dim"].value <= high

    weak = gallery.result("predict-weak-to-strong")[0].model_dump()["weak"]
    shown = headline("predict-weak-to-strong")
    first = min(weak, key=lambda one: one["rank"])
    assert shown["best"].value == first["name"]
    assert shown["rank"].value == first["rank_ci"][1]
    assert shown["label_projection"].value == min(one["label_projection"] for one in weak)
    rivals = [one for one in weak if one["rank_ci"][0] <= first["rank_ci"][1]]
    assert shown["ties"].value == len(rivals) - 1

    board = gallery.result("rank-distilled-dataset")[0].model_dump()["leaderboards"][0]["rows"]
    shown = headline("rank-distilled-dataset")
    scores = {row["name"]: sum(row["lrs"]["runs"]) / len(row["lrs"]["runs"]) for row in board}
    assert shown["best"].value == max(scores, key=lambda name: scores[name])
    assert shown["lrs"].value == pytest.approx(max(scores.values()))
    assert shown["lead"].value == pytest.approx(max(scores.values()) - min(scores.values()))

    ranking = gallery.result("evaluate-scorers")[0].model_dump()["ranking"]
    shown = headline("evaluate-scorers")
    assert shown["auroc"].value == max(one["auroc"]["value"] for one in ranking)
    assert shown["best"].value == max(ranking, key=lambda one: one["auroc"]["value"])["scorer"]

    texts, folder = gallery.result("synthesize-text")
    shown = headline("synthesize-text")
    train = (folder / "artifacts" / "train.jsonl").read_text().splitlines()
    assert shown["kept"].value == len(train)
    labels = texts.model_dump()["labels"]
    distances = [label["distance"]["kept"] for label in labels]
    assert shown["distance"].value == pytest.approx(sum(distances) / len(distances))
    arms = {arm["arm"]: arm for arm in texts.model_dump()["evaluation"]}
    accuracy = {
        name: sum(one["accuracy"] for one in arm["seeds"]) / len(arm["seeds"])
        for name, arm in arms.items()
    }
    assert shown["gain"].value == pytest.approx(accuracy["kept"] - accuracy["unselected"])

    selection = gallery.result("select-subset")[0].model_dump()
    shown = headline("select-subset")
    assert shown["selected"].value == len(selection["indices"])
    assert shown["share"].value == len(selection["indices"]) / selection["candidates"]


def _samples(found: JobResult) -> list[Sample]:
    [block] = [block for block in found.blocks if isinstance(block, SamplesBlock)]
    if block.samples is not None:
        return block.samples
    assert block.artifact is not None
    folder = gallery.result("score-hallucination")[1]
    lines = (folder / block.artifact.id).read_bytes().splitlines()
    return [Sample.model_validate_json(line) for line in lines]


def test_the_verdict_of_two_stages_is_among_the_figures_of_an_item(tmp_path: Path) -> None:
    job_type = load_registry()["score-hallucination"]
    items = [
        {
            "responses": [{"text": text} for text in texts],
            "verifier_responses": ["Canberra", "Canberra"],
        }
        for texts in (["Canberra"] * 3, ["Sydney", "Perth", "Hobart"])
    ]
    spec = job_type.spec.model_validate(
        {"items": items, "verifier": {"lower": 0.1, "upper": 0.9, "verdict": 0.5}}
    )
    found = job_type.load_runner()(spec, LocalContext(tmp_path, spec))
    assert isinstance(found, JobResult)
    shown = [sample.values["two_stages"] for sample in _samples(found)]
    assert shown == [item.verification.verdict for item in found.model_copy().items]  # type: ignore[attr-defined]
    assert set(shown) == {"right", "hallucinated"}
