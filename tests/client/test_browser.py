"""Reports in a real browser: widths, both schemes, no foreign request, axe."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datassay.report.html import render

from tests import gallery

pytestmark = pytest.mark.system

#: Wherever Debian's package or a desktop has it.
CHROMIUM = next(
    filter(
        None,
        (
            path if Path(path).is_file() else shutil.which(path)
            for path in ("/usr/lib/chromium/chromium", "chromium", "google-chrome")
        ),
    ),
    None,
)

#: Figures whose picture is missing, or wider than its card or than what is drawn of it.
_MISFITS = """() => [...document.querySelectorAll(".plot")].filter((plot) => {
  const svg = plot.querySelector("svg");
  return !svg || svg.getBoundingClientRect().width > plot.clientWidth + 1
    || Number(svg.getAttribute("width")) > plot.clientWidth + 1;
}).map((plot) => plot.dataset.spoken)"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", gallery.SPECS)
def test_a_report_fits_any_screen(
    chromium: Any, tmp_path: Path, name: str, width: int, scheme: str
) -> None:
    file = _report(tmp_path, name)
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(_MISFITS) == []
    assert page.locator(".failed").count() == 0
    result, _ = gallery.view(name)
    warnings = result.shown.of_kind("warning")
    assert page.locator(".warnings li").count() == len(warnings)
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


@pytest.mark.parametrize("name", gallery.SPECS)
def test_axe_finds_nothing_serious(chromium: Any, tmp_path: Path, name: str, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed")
    # The policy of the page would keep axe itself out.
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(_report(tmp_path, name).as_uri())
    page.wait_for_selector("html[data-drawn]")
    page.add_script_tag(content=axe.AXE_FILE_PATH.read_text("utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    context.close()


def test_lists_are_searched_and_tables_sorted(chromium: Any, tmp_path: Path) -> None:
    page = chromium.new_page()
    page.goto(_report(tmp_path, "score-hallucination").as_uri())
    samples = page.locator(".sample")
    total = samples.count()
    page.locator(".search input").last.fill("namibia")
    visible = page.locator(".sample:visible")
    assert 0 < visible.count() < total
    assert page.locator("output").last.text_content() == f"{visible.count()} of {total}"
    visible.first.locator("summary").click()
    assert "Namibia" in visible.first.locator(".passage").first.text_content()
    assert visible.first.locator("li").count() == 10
    heading = page.locator("th", has_text="AUROC").first
    cells = page.locator("td:nth-child(2)")
    heading.click()
    first = cells.all_text_contents()
    heading.click()
    assert cells.all_text_contents() == first[::-1]
    assert heading.get_attribute("aria-sort") == "ascending"
    page.close()


def _report(folder: Path, name: str) -> Path:
    file = folder / "report.html"
    file.write_text(render(*gallery.view(name)), encoding="utf-8")
    return file


def test_the_docs_of_a_service_need_nothing_from_elsewhere(chromium: Any, gateway_url: str) -> None:
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{gateway_url}/docs")
    page.wait_for_selector(".opblock-summary-description")
    assert page.get_by_text("List jobs", exact=True).count() == 1
    assert page.get_by_text("Distil a data set", exact=True).count() == 1
    page.goto(gateway_url)
    assert page.locator("h1").text_content() == "Datassay"
    assert said == []
    outside = [url for url in asked if not url.startswith((gateway_url, "data:", "blob:"))]
    assert outside == []
    page.close()
