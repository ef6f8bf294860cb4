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
from typing import Any

import pytest
from datassay.models import JobRecord
from datassay.report.html import render
from datassay.report.scores import Estimate, Ranking, question
from datassay.report.tables import print_score_summary
from datassay.result import Result
from datassay.view import ResultView
from rich.console import Console

from tests.client.fake_service import job, scored_result

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' <!--"


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


def report(data: dict[str, Any], title: str | None = None, **changes: Any) -> str:
    result = ResultView(data, JobRecord.model_validate(job("SUCCEEDED", **changes)))
    ranking = Ranking(result.summary, by=None, top=25)
    for item in data.get("items") or []:
        ranking.add(item)
    return render(result, ranking, title)


def evil_report() -> str:
    data = scored_result()
    for item in data["items"]:
        item.update(id=EVIL, prompt=EVIL, answer=EVIL)
    data["summary"]["scorers"] = {EVIL: data["summary"]["scorers"]["snne"]}
    for item in data["items"]:
        item["scores"] = {EVIL: item["scores"]["snne"]}
    data["summary"][EVIL] = EVIL
    data["provenance"] = {EVIL: EVIL}
    data["figures"] = [{"title": EVIL, "caption": EVIL, "vega_lite": {"title": EVIL}}]
    return report(data, EVIL, labels={EVIL: EVIL}, type=EVIL)


def test_data_cannot_add_elements() -> None:
    page = Page(evil_report())
    names = [tag for tag, _ in page.tags]
    assert names.count("script") == 5  # the data, three of Vega, our own
    assert "img" not in names
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")]
    assert page.text.count("alert(1)") > 5
    assert json.loads(page.scripts[0]) == [{"title": EVIL}]


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
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_nothing_is_loaded_from_elsewhere() -> None:
    text = evil_report()
    page = Page(text)
    assert not [attrs for _, attrs in page.tags if "src" in attrs or "href" in attrs]
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
    assert len(report(scored_result())) < 30_000


def test_any_job_type_has_a_report() -> None:
    page = Page(report({"summary": {"n_selected": 12, "loss": 0.5}}, None, type="select-data"))
    assert "Select data report" in page.text
    assert "12" in page.text
    assert "Most suspicious" not in page.text
    assert "Summary" not in Page(report({})).text


def test_unknown_figures_are_dashes() -> None:
    data = scored_result()
    scorer = data["summary"]["scorers"]["snne"]
    scorer.update(mean=None, median=None, evaluation=None)
    data["items"][0]["scores"]["snne"].update(value=None, valid=False, reason="n < 2")
    data["items"][1].update(prompt=None, answer=None, label=None)
    page = Page(report(data))
    assert "AUROC" not in page.text
    assert "–" in page.text
    assert "q0" not in page.text


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


def test_equal_scores_keep_their_order() -> None:
    score = {"u": {"value": 1.0, "direction": "uncertainty", "valid": True}}
    ranking = Ranking({"scorers": {"u": {}}}, by=None, top=3)
    for i in range(9):
        ranking.add({"id": i, "scores": score})
    assert [suspect.item["id"] for suspect in ranking.suspects] == [0, 1, 2]


def test_estimates_and_questions_read_well() -> None:
    assert str(Estimate(0.8123, 0.75, 0.86)) == "0.812 [0.750, 0.860]"
    assert str(Estimate(0.8123)) == "0.812"
    assert str(Estimate()) == "–"
    assert question("Be brief.\nQuestion: Where?\nAnswer:", 17) == "…Question: Where?"


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_shows_all_figures(width: int) -> None:
    data = scored_result(12)
    data["items"][11].update(answer="\x1b[2Jgone [bold]", prompt="long " * 99)
    out = io.StringIO()
    finished = JobRecord.model_validate(job("SUCCEEDED"))
    result = Result(data, finished, None)  # type: ignore[arg-type]
    print_score_summary(result, console=Console(file=out, width=width))
    text = out.getvalue()
    assert "The 10 most suspicious answers by snne" in text
    assert max(map(len, text.splitlines())) <= width
    assert text.index("q11") < text.index("q10") < text.index("q2")
    assert "q1 " not in text
    assert "[0.750, 0.860]" in text
    assert "\x1b[2J" not in text
    assert "1 of 10" in text


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
