"""Graders on answers as people and models write them, and the words that they compare."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from methods.score_hallucination.answers.graders import GRADERS, SQUAD
from methods.score_hallucination.answers.judge_prompts import read_verdict
from methods.score_hallucination.answers.numbers import given_number
from methods.score_hallucination.answers.words import words_of
from methods.score_hallucination.evaluation.ranking import evaluate
from methods.score_hallucination.evaluation.spec import Grader
from methods.score_hallucination.similarity.plain_text import plain_text


@pytest.mark.parametrize(
    ("answer", "reference", "same"),
    [
        ("1.5", "15", False),
        ("-5", "5", False),
        ("\u22125", "-5", True),
        ("0.50", "0.5", True),
        ("1,000", "1000", True),
        ("5km", "5 km", True),
        ("C++", "C", False),
        ("c++.", "C++", True),
        ("C#", "C", False),
        ("The Eiffel Tower.", "eiffel tower", True),
        ("the", "a", False),
        ("**Paris**", "Paris", True),
        ("`foo_bar`", "foo_bar", True),
        ("# Paris", "paris", True),
        ("> Paris", "paris", True),
        ("$\\boxed{42}$", "42", True),
        ("\\text{Paris}", "Paris", True),
        ("Newton\u2019s law", "Newton's law", True),
        ("\u201cParis\u201d", "Paris", True),
        ("Pa\u200bris", "Paris", True),
        ("北京。", "北京", True),
        ("北京", "南京", False),
        ("10\u2075", "105", False),
        ("10\u2075", "10^5", True),
        ("\u0661\u0664", "14", True),
        ("", "", True),
        ("Paris", "", False),
        (">", "<", False),
        (">", ">", True),
    ],
)
def test_exact(answer: str, reference: str, same: bool) -> None:
    assert GRADERS["exact"](answer, [reference]) == same
    assert GRADERS["token_f1"](answer, [reference]) == 1 or not same


@pytest.mark.parametrize(
    ("answer", "reference", "there"),
    [
        ("It was Edison's invention.", "Edison", True),
        ("It was Edison\u2019s invention.", "Edison", True),
        ("the boys' room", "boys", True),
        ("I use C++ daily", "C", False),
        ("I use C++ daily", "C++", True),
        ("It costs 1,000.", "1000", True),
        ("In 2014", "14", False),
        ("It is -5 degrees", "5", False),
        ("Version 1.5 is out", "15", False),
        ("กรุงเทพมหานครเป็นเมืองหลวง", "กรุงเทพ", True),
        ("我住在**北京**市", "北京", True),
        ("São Paulo", "Sao Paulo", True),
        ("Sao Paulo", "São Paulo", False),
    ],
)
def test_contains(answer: str, reference: str, there: bool) -> None:
    assert GRADERS["contains"](answer, [reference]) == there


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("\\boxed{$9{,}500}", "9500", True),
        ("So \\boxed{\\frac{3}{4}} it is, since 7 > 3.", "0.75", True),
        ("The answer is 42, because 3 is odd.", "42", True),
        ("Answer: 42 (of 100)", "42", True),
        ("first 3, then 4\n#### 72", "72", True),
        ("3/4", ".75", True),
        ("1 1/2 cups", "1.5", True),
        ("5 × 10^3", "5000", True),
        ("5\\times10^{3}", "5000", True),
        ("10\u2075", "100000", True),
        ("50%", "0.5", True),
        ("50 percent", "50%", True),
        ("50%", "50", True),
        ("5%", "50", False),
        ("-5", "5", False),
        ("on 2024-05", "5", True),
        ("1,234.50 dollars", "1234.5", True),
        ("1e3", "1000", True),
        ("none", "0", False),
    ],
)
def test_numeric(answer: str, reference: str, right: bool) -> None:
    assert GRADERS["numeric"](answer, [reference]) == right


def test_squads_deletion_of_punctuation_on_request() -> None:
    assert SQUAD["exact"]("1.5", ["15"]) == 1
    assert Grader(name="exact", compat="squad").compat == "squad"
    with pytest.raises(ValidationError, match="no form as in SQuAD"):
        Grader(name="numeric", compat="squad")


@given(st.text(max_size=80))
def test_any_text_is_its_own_answer(text: str) -> None:
    """Whatever it holds, nothing crashes, and what it says is said by it."""
    assert GRADERS["exact"](text, [text]) == 1
    if words_of(text):
        assert GRADERS["contains"](text, [text]) == 1
    plain_text(text)
    number = given_number(text)
    assert number is None or GRADERS["numeric"](text, [text]) == 1


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("It is not incorrect.", 1.0),
        ("That isn't wrong: correct", 1.0),
        ("Partially correct.", 0.5),
        ("mostly correct", 0.5),
        ("Incorrect", 0.0),
        ("not quite correct", 0.0),
        ("Correct.", 1.0),
        ("perhaps", None),
    ],
)
def test_verdicts_in_words(said: str, value: float | None) -> None:
    assert read_verdict({"text": said}) == value


def test_infinity_is_larger_than_all_and_small_scores_are_ranked() -> None:
    quality = np.array([1.0, 0.0, 1.0])
    assert evaluate(np.array([0.1, np.inf, 0.3]), quality)["auroc"] == 1
    assert evaluate(np.array([-np.inf, 0.2, 0.1]), quality)["auroc"] == 1
    assert evaluate(np.array([1e-12, 3e-12, 2e-12]), quality)["auroc"] == 1
    # Equal on paper: rounding ranks nobody.
    assert evaluate(np.array([1.0, 1.0 + 1e-15, 1.0]), quality)["auroc"] == 0.5


@pytest.mark.parametrize(
    ("name", "answer", "reference", "right"),
    [
        ("numeric", "The area is 42 m\xb2.", "42", 1),
        ("numeric", "9.81 m s^-2", "9.81", 1),
        ("numeric", "1.5 kg/m\xb3", "1.5", 1),
        ("numeric", "Therefore, 5 + 7 = 12", "12", 1),
        ("numeric", "The answer is 5 + 7 = 12", "12", 1),
        ("numeric", "Therefore 3 \xd7 4 = 12 apples", "12", 1),
        ("numeric", "\\boxed{1,\\!000}", "1000", 1),
        ("numeric", "2\xbd", "2.5", 1),
        ("numeric", "1.6\xd710^-19 C", "6.6\xd710^-34", 0),
        ("numeric", "minus 5", "5", 0),
        ("numeric", "3.5 billion", "3500000000", 1),
        ("numeric", "2\\frac{1}{2}", "2.5", 1),
        ("exact", "A-", "A", 0),
        ("exact", "1/2", "1 2", 0),
        ("exact", "3:2", "3 2", 0),
        ("exact", "> 5", "5", 0),
        ("exact", "1.10.0", "1.1.0", 0),
        ("exact", "007", "7", 0),
        ("exact", "Python 3.10", "Python 3.1", 0),
        ("exact", "1/2", "1 / 2", 1),
        ("exact", "Beyonc\xe9", "Beyonce", 1),
        ("exact", "5 mW", "5 MW", 0),
        ("exact", "x\u207f", "xn", 0),
        ("exact", "[100,200]", "[100, 200]", 1),
        ("exact", "It's C++.", "C++", 0),
        ("exact", "Edison's", "Edison", 1),
        ("exact", "\u5317\u4eac\u3002", "\u5317\u4eac", 1),
        ("contains", "10\u2075 years", "10", 0),
        ("contains", "\uc11c\uc6b8\uc740 \uc218\ub3c4", "\uc11c\uc6b8", 1),
        ("contains", "l'Allemagne", "Allemagne", 1),
        ("contains", "\xd8rsted", "Orsted", 1),
        ("contains", "\u0141\xf3d\u017a", "Lodz", 1),
        ("contains", "It was 1.2.3", "1.2", 0),
        ("contains", "in 2014", "14", 0),
        ("contains", "It was Edison's invention.", "Edison", 1),
        ("contains", "I use C++ daily", "C++", 1),
        ("contains", "I use C# daily", "C", 0),
    ],
)
def test_answers_as_models_write_them(name: str, answer: str, reference: str, right: int) -> None:
    assert GRADERS[name](answer, [reference]) == right
