"""Reports: complete, offline, and closed to what data smuggles in."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from datassay.blocks import Content, Figure, Images, Picker, Samples, Table, Text, load
from datassay.jobs import Job
from datassay.models import ArtifactRef, JobRecord
from datassay.report import numbers
from datassay.report.html import fragment, render, shorten, write_report
from datassay.report.scores import Ranking
from datassay.report.terminal import MAX_LINES, lines
from datassay.result import Result
from datassay.view import ResultView
from rich.console import Console

from tests import gallery
from tests.client.fake_service import job

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' <!--"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class Page(HTMLParser):
    """Collects elements, attributes, texts and the contents of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        else:
            self.text += data


def view(data: dict[str, Any], **changes: Any) -> ResultView:
    return ResultView(data, JobRecord.model_validate(job("SUCCEEDED", **changes)))


def report(data: dict[str, Any], title: str | None = None, **changes: Any) -> str:
    result = view(data, **changes)
    return render(result, load(result.shown.blocks, NoArtifacts()), title)


class NoArtifacts:
    """Artifacts of a result that has one picture."""

    def lines(self, artifact: ArtifactRef) -> Any:
        raise AssertionError(artifact)

    def content(self, artifact: ArtifactRef) -> bytes:
        return PIXEL


def document(text: str = "plain", **changes: Any) -> dict[str, Any]:
    """A result with a block of every kind, and this text wherever there is one."""
    artifact = {"id": "art_1", "name": text, "media_type": "image/png", "size": 70, "sha256": "0"}
    column = {"key": "a", "label": text, "help": text, "format": "number", "unit": text}
    return {
        "title": text,
        "headline": [{"key": "a", "label": text, "value": text, "unit": text, "help": text}],
        "blocks": [
            {"kind": "warning", "text": text},
            {"kind": "text", "text": text},
            {
                "kind": "table",
                "title": text,
                "help": text,
                "columns": [column, {"key": "b", "label": text}],
                "rows": [{"a": {"value": 0.5, "low": 0.4, "high": 0.6}, "b": text}],
                "total": 3,
                "artifact": artifact,
            },
            {"kind": "figure", "title": text, "caption": text, "vega_lite": {"title": text}},
            {"kind": "images", "title": text, "caption": text, "artifact": artifact},
            {
                "kind": "samples",
                "title": text,
                "help": text,
                "columns": [column],
                "value_label": text,
                "sort": "-a",
                "total": 1,
                "samples": [
                    {
                        "id": text,
                        "prompt": text,
                        "answer": text,
                        "verdict": "wrong",
                        "values": {"a": 0.25},
                        "marks": [{"start": 0, "end": 1, "value": 0.5}],
                        "groups": [{"label": text, "texts": [{"text": text, "value": 0.125}]}],
                    }
                ],
            },
        ],
        "provenance": {text: text},
        **changes,
    }


def evil_report() -> str:
    return report(document(EVIL), EVIL, labels={EVIL: EVIL}, type=EVIL)


def test_data_cannot_add_elements() -> None:
    page = Page(evil_report())
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 5  # the data, three of Vega, our own
    assert [attrs["src"] for tag, attrs in page.tags if tag == "img"] == [
        f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
    ]
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")]
    assert page.text.count("alert(1)") > 15
    assert json.loads(page.scripts[0]) == [{"title": EVIL}]


def test_a_verdict_that_is_no_word_cannot_add_elements() -> None:
    data = document()
    data["blocks"][5]["samples"][0]["verdict"] = EVIL
    assert Page(report(data)).scripts[1:] == Page(report(document())).scripts[1:]


def test_the_policy_names_the_scripts_by_hash() -> None:
    page = Page(evil_report())
    [policy] = [
        attrs["content"] or ""
        for tag, attrs in page.tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    for script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy.partition("style-src")[0]


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = evil_report()
    page = Page(text)
    links = [attrs.get("src") or attrs.get("href") for _, attrs in page.tags]
    assert all(link.startswith("data:") for link in links if link)
    assert "sourceMappingURL" not in text
    assert "@import" not in text


def test_the_vendored_scripts_are_those_of_the_readme() -> None:
    vendor = files("datassay.report").joinpath("vendor")
    rows = re.findall(r"\| (\S+\.js) \| `(\w{64})` \|", vendor.joinpath("README.md").read_text())
    assert len(rows) == 3
    for name, digest in rows:
        content = vendor.joinpath(name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
        assert b"</script" not in content.lower()
        assert b"<!--" not in content
        assert vendor.joinpath(f"LICENSE.{name.removesuffix('.min.js')}").is_file()


def test_a_report_without_figures_is_small() -> None:
    data = document()
    data["blocks"] = [block for block in data["blocks"] if block["kind"] != "figure"]
    assert len(report(data)) < 30_000


def test_a_result_from_before_there_were_blocks_has_a_report() -> None:
    data = {
        "summary": {"n_selected": 12, "loss": 0.5},
        "warnings": ["beware"],
        "figures": [{"title": "Drawn", "vega_lite": {}}],
    }
    page = Page(report(data, type="select-data"))
    for text in ("Select data", "n_selected", "12", "beware", "Drawn"):
        assert text in page.text
    assert Page(report({})).text


def test_blocks_that_are_newer_than_the_client_are_counted() -> None:
    data = document()
    data["blocks"] += [{"kind": "hologram"}, {"kind": "table", "title": 7}]
    shown = view(data).shown
    assert [type(block) for block in shown.blocks] == [Text, Text, Table, Figure, Images, Samples]
    assert shown.unknown == 2
    assert "2 parts of this result need a newer client" in Page(report(data)).text


def test_a_cached_result_names_the_job_that_made_it() -> None:
    page = Page(report(document(), attempt=0, cache={"key": "00", "hit_of": "job_other"}))
    assert "Result of" in page.text
    assert "job_other" in page.text
    assert "0 of 3" not in page.text


def test_long_tables_and_lists_say_what_is_left_out() -> None:
    data = document()
    data["blocks"][5]["total"] = 1000
    page = Page(report(data))
    assert "The first 1 of 3 rows; all are in the artifact plain." in page.text
    assert "The first 1 of 1,000 items are shown." in page.text


def test_the_samples_that_come_first_are_kept() -> None:
    block = Samples.model_validate(document()["blocks"][5])
    samples = [{"id": str(k), "values": {"a": value}} for k, value in enumerate([1, 3, None, 3, 2])]
    picker = Picker(block, 4)
    for sample in samples:
        picker.add(sample)
    found = picker.best()
    assert [sample["id"] for sample in found.samples] == ["1", "3", "4", "0"]
    assert found.seen == 5
    long = [{"id": str(k), "prompt": "x" * 3_000_000, "values": {"a": k}} for k in range(3)]
    picker = Picker(block)
    for sample in long:
        picker.add(sample)
    assert [sample["id"] for sample in picker.best().samples] == ["2"], "as much as a page bears"


@pytest.mark.parametrize("name", gallery.SPECS)
def test_everything_that_a_job_type_shows_is_in_its_report(name: str) -> None:
    result, content = gallery.view(name)
    page = Page(render(result, content))
    text = " ".join(page.text.split())
    for figure in result.shown.headline:
        assert figure.label in text
        assert numbers.headline(figure) in text
    for block in result.shown.blocks:
        if isinstance(block, Text):
            assert " ".join(block.text.split()) in text
        elif isinstance(block, Table):
            for row in block.rows:
                for column in block.columns:
                    shown = " ".join(numbers.cell(row[column.key], column.format).split())
                    assert shown in text
        elif isinstance(block, Figure | Images | Samples):
            assert block.title in text
    pictures = sum(isinstance(block, Images) for block in result.shown.blocks)
    assert [tag for tag, _ in page.tags].count("img") == pictures


@pytest.mark.parametrize("name", gallery.SPECS)
@pytest.mark.parametrize("width", [80, 140])
def test_sixty_lines_in_a_terminal_have_headline_and_warnings(name: str, width: int) -> None:
    result, content = gallery.view(name)
    shown = [line.plain.rstrip() for line in lines(result, content, Console(width=width))]
    assert len(shown) <= MAX_LINES
    assert max(map(len, shown)) <= max(width, 81)  # the last line is a command, for copying
    text = " ".join(" ".join(shown).split())
    assert text.startswith(result.shown.title)
    for figure in result.shown.headline:
        assert numbers.headline(figure)[: width // 3] in text
    tables = [block for block in result.shown.blocks if isinstance(block, Table)]
    assert tables[0].title in text
    warnings = [b for b in result.shown.blocks if isinstance(b, Text) and b.kind == "warning"]
    for block in warnings:
        assert " ".join(block.text.split())[:30] in text


def test_many_long_blocks_fit_the_terminal_and_say_what_is_missing() -> None:
    data = document()
    table = data["blocks"][2]
    table["rows"] = table["rows"] * 100
    data["blocks"] = [{"kind": "warning", "text": f"{k} beware"} for k in range(40)] + [table] * 30
    out = lines(view(data), Content(), Console(width=80))
    assert len(out) <= MAX_LINES
    text = "\n".join(line.plain for line in out)
    assert "0 beware" in text
    assert "and 28 more" in text
    assert re.search(r"\d+ more tables are in the report", text)


def test_control_characters_do_not_reach_the_terminal() -> None:
    result = view(document("\x1b[2Jgone [bold]"))
    out = io.StringIO()
    console = Console(file=out, width=100)
    for line in lines(result, load(result.shown.blocks, NoArtifacts()), console):
        console.print(line)
    assert "\x1b[2J" not in out.getvalue()
    assert "gone [bold]" in out.getvalue()


def test_notebooks_show_headline_and_tables_without_scripts() -> None:
    page = Page(fragment(view(document(EVIL))))
    assert not page.scripts
    assert "img" not in [tag for tag, _ in page.tags]
    assert "0.500 [0.400, 0.600]" in page.text
    ended = Job.model_validate(job("SUCCEEDED", result=document("beautiful")))
    assert "beautiful" in ended._repr_html_()
    running = Job.model_validate(
        job("RUNNING", progress={"phase": "scoring", "current": 1, "total": 4, "unit": "items"})
    )
    assert "running, scoring 1 of 4 items" in running._repr_html_()
    result = Result(document("beautiful"), ended, None)  # type: ignore[arg-type]
    assert "beautiful" in result._repr_html_()


def test_tables_become_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    result = view(document())
    frame = result.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.to_dict("records") == [{"a": 0.5, "a_low": 0.4, "a_high": 0.6, "b": "plain"}]
    with pytest.raises(KeyError, match="known: 'plain'"):
        result.to_pandas("other")


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "number", "–"),
        (True, "text", "yes"),
        ("a", "number", "a"),
        (0.12345, "number", "0.123"),
        (0.0, "number", "0.000"),
        (1e-9, "number", "1e-09"),
        (12345.6, "number", "12,345.6"),
        (0.123, "percent", "12.3 %"),
        (12345, "integer", "12,345"),
        (999, "bytes", "999 B"),
        (1_500_000, "bytes", "1.5 MB"),
        (59.94, "seconds", "59.9 s"),
        (3661, "seconds", "1:01:01 h"),
        (2.5, "hologram", "2.500"),
        ({"value": 0.5, "low": None, "high": 1}, "number", "0.500"),
    ],
)
def test_figures_read_well(value: Any, kind: str, text: str) -> None:
    assert numbers.cell(value, kind) == text


ODD: list[dict[str, Any]] = [
    {"blocks": ["x", 7, None, {"kind": []}, {"kind": "text"}]},
    {"blocks": {"kind": "text"}, "headline": 7, "warnings": 5, "summary": "x", "figures": [{}]},
    {"headline": [{"key": "a", "label": "A", "value": 10**400, "format": "integer"}]},
    {"headline": [{"key": "a", "label": "A", "value": 10**5000}]},
    {"headline": [{"key": "a", "label": "A", "value": float("inf"), "format": "seconds"}, "x", {}]},
    {
        "blocks": [
            {
                "kind": "table",
                "title": "T",
                "columns": [{"key": "a", "label": "A", "format": "bytes"}],
                "rows": [{"a": 10**400}, {"a": float("nan")}, {"a": ["x"]}, {}],
            },
            {"kind": "figure", "vega_lite": {"data": {"values": [float("nan"), "\ud800"]}}},
        ]
    },
    {
        "blocks": [
            {
                "kind": "samples",
                "title": "\ud800",
                "columns": [{"key": "a", "label": "A"}],
                "sort": "a",
                "total": 5,
                "samples": [
                    {"id": "1", "prompt": 7},
                    {"id": "2", "values": [1]},
                    {"id": "3", "verdict": 1},
                    {"id": "4", "groups": "x"},
                    {"id": "5", "prompt": "\ud800"},
                ],
            }
        ]
    },
]


@pytest.mark.parametrize("data", ODD)
def test_odd_results_crash_no_renderer(data: dict[str, Any], tmp_path: Path) -> None:
    result = view(data)
    content = load(result.shown.blocks, NoArtifacts())
    page = write_report(tmp_path / "report.html", result, content).read_text("utf-8")
    figures = Page(page).scripts[0]
    json.loads(figures, parse_constant=lambda name: pytest.fail(name))
    assert lines(result, content, Console(width=80))
    fragment(result)


def test_prompts_are_cut_between_words() -> None:
    assert shorten("Be brief.\nQuestion: Where?\nAnswer:", 18) == "… Question: Where?"
    assert shorten("Where?", 18) == "Where?"
    assert len(shorten("x" * 99, 18)) == 18


def test_the_ranking_goes_by_the_best_scorer_and_its_direction() -> None:
    def scores(low: float, high: float) -> dict[str, Any]:
        return {
            "u": {"value": low, "direction": "uncertainty", "valid": True},
            "c": {"value": high, "direction": "confidence", "valid": True},
        }

    def evaluated(auroc: float | None) -> dict[str, Any]:
        return {"evaluation": {"n": 9, "auroc": {"value": auroc}}}

    summary = {"scorers": {"u": evaluated(0.6), "c": evaluated(0.7), "x": evaluated(None)}}
    items = [{"id": i, "scores": scores(i, i)} for i in range(5)]
    for by, scorer, order in ((None, "c", [0, 1]), ("u", "u", [4, 3])):
        ranking = Ranking(summary, by=by, top=2)
        for item in [*items, {"id": "none"}, {"id": "null", "scores": None}]:
            ranking.add(item)
        assert ranking.scorer == scorer
        assert [suspect.item["id"] for suspect in ranking.suspects] == order


def test_importing_the_package_loads_neither_rich_nor_scripts() -> None:
    code = "import sys, datassay; print({'rich', 'datassay.report'} & set(sys.modules))"
    path = files("datassay").joinpath("..")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(path)},
    )
    assert done.stdout.strip() == "set()"


def test_parts_of_an_answer_are_marked_by_their_weight() -> None:
    marks = [
        {"start": 0, "end": 4, "value": 1.0},
        {"start": 6, "end": 8, "value": 0.25},
        # Beyond the text, and over another one: not shown.
        {"start": 7, "end": 900, "value": 1.0},
        {"start": 2, "end": 3, "value": 1.0},
    ]
    sample = {"id": "a", "answer": "<ab> & cd.", "values": {}, "marks": marks}
    block = {"kind": "samples", "title": "t", "columns": [], "total": 1, "samples": [sample]}
    page = report(document("x", blocks=[block]), "x")
    assert (
        '<mark style="--weight:60%" title="uncertainty 1.00">&lt;ab&gt;</mark> &amp;'
        '<mark style="--weight:15%" title="uncertainty 0.25"> c</mark>d.'
    ) in page
