"""Nothing that we ship comes under a licence that nobody looked at."""

from __future__ import annotations

from pathlib import Path

from tests.deployment.licences import shipped

PAGE = Path(__file__).parents[2] / "docs" / "licences.md"


def test_the_page_lists_what_is_shipped() -> None:
    page = PAGE.read_text()
    listed = dict(line.strip("| ").split(" | ") for line in page.splitlines() if " | " in line)
    # A platform may need less than the page lists, never something else.
    assert shipped().items() <= listed.items()


def test_no_licence_asks_for_our_source() -> None:
    strict = {name for name, text in shipped().items() if "GPL" in text and "LGPL" not in text}
    assert strict == set()
