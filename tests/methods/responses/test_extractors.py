"""How answers to problems are read and compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.responses.reading.extractors import extract, is_right
from methods.responses.schema import Extractor


@pytest.mark.parametrize(
    ("how", "text", "found"),
    [
        ("boxed", r"So \boxed{1} or rather \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("boxed", r"\boxed{a{b}c} and an open \boxed{d", "a{b}c"),
        ("boxed", "no box", None),
        ("boxed", r"it is \boxed 7 indeed", "7"),
        ("last-number", "3 apples and 1,234.5 pears", "1234.5"),
        ("last-number", "none", None),
        ("last-number", "it is -7.", "-7"),
        ("choice", "I think A or B, but the answer is (C).", "C"),
        ("choice", r"\boxed{D}", "D"),
        ("choice", "B) because", "B"),
        ("choice", "Answer: E", "E"),
        ("choice", "nothing here", None),
        ("exact", "  Paris \n", "Paris"),
        ("exact", " ", None),
    ],
)
def test_extract(how: Extractor, text: str, found: str | None) -> None:
    assert extract(text, how) == found


@pytest.mark.parametrize(
    ("how", "text", "truth", "right"),
    [
        ("boxed", r"\boxed{0.5}", r"\frac{1}{2}", True),
        ("boxed", r"\boxed{\dfrac12}", "1/2", True),
        ("boxed", r"\boxed{1{,}000}", "1000", True),
        ("boxed", r"\boxed{\$18}", "18", True),
        ("boxed", r"\boxed{18\text{ cm}}", "18", True),
        ("boxed", "\\boxed{\u22125}", "-5", True),
        ("boxed", r"\boxed{18}", "9 * 2 = 18\n#### 18", True),
        ("last-number", "the difference 10-5", "5", True),
        ("last-number", "18", "9 * 2 = 19\n#### 18", True),
        ("choice", "Answer: A\n\nB is too small; option D is absurd.", "A", True),
        ("choice", "The answer is A. Option B is wrong, option C too.", "A", True),
        ("boxed", r"\boxed{1,000}", "1000", True),
        ("boxed", r"\boxed{(1, 2)}", "(1,2)", True),
        ("boxed", r"\boxed{12}", "(1,2)", False),
        ("boxed", r"\boxed{5\text{ cm}}", "5cm", True),
        ("boxed", r"\boxed{-\frac{3}{4}}", "-0.75", True),
        ("boxed", r"\boxed{073}", "73", True),
        ("boxed", "the answer is 5", "5", False),
        ("last-number", "so 2 + 2 = 4.0", "4", True),
        ("last-number", "so 5", "4", False),
        ("last-number", "1e3", "1000", True),
        ("last-number", "1e999999999", "1e999999999", True),
        ("choice", "The answer is B", "(B)", True),
        ("choice", "The answer is B", "b", True),
        ("exact", "5  7 9", "5 7 9", True),
        ("exact", "579", "5 7 9", False),
    ],
)
def test_is_right(how: Extractor, text: str, truth: str, right: bool) -> None:
    assert is_right(text, truth, how) is right


@given(st.integers(-(10**9), 10**9))
def test_a_number_is_itself_in_every_form(number: int) -> None:
    for text in (str(number), f"{number:,}", f"{number}.0", f"${number}$"):
        assert is_right(rf"\boxed{{{text}}}", str(number), "boxed")
        assert is_right(f"therefore {text}", str(number), "last-number")
    assert not is_right(rf"\boxed{{{number + 1}}}", str(number), "boxed")


def test_a_text_of_open_boxes_ends() -> None:
    assert extract("\\boxed{" * 20_000, "boxed") is None


@given(st.text(max_size=200))
def test_no_text_breaks_an_extractor(text: str) -> None:
    hows: tuple[Extractor, ...] = ("boxed", "last-number", "choice", "exact")
    for how in hows:
        found = extract(text, how)
        assert is_right(text, "5", how) in (True, False)
        if how == "exact" and found is not None:
            assert is_right(text, text.strip(), how)
