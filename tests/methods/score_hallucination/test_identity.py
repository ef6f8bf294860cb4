"""When two answers are one answer: written otherwise, yes; said otherwise, no."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from methods.score_hallucination.scoring.pipeline import SCORERS, Answers, Options, score
from methods.score_hallucination.similarity.identity import canonical
from methods.score_hallucination.similarity.rouge_l import unique_answers
from methods.score_hallucination.similarity.tokenize import tokenize_unicode

SAME = [
    ("0.50", "0.5"),
    ("1,000 people", "1000 people"),
    ("12\u202f500", "12500"),
    ("1e3", "1000"),
    ("5km", "5 km"),
    ("50%", "50 %"),
    ("\u0663", "3"),
    ("\uff11\uff10", "10"),
    ("\u00bd", "1/2"),
    ("2024-05-01", "2024/5/1"),
    ("25/12/2024", "2024-12-25"),
    ("_Canberra_", "**Canberra**"),
    ("`x = 1`", "x = 1"),
    ("# The Title", "the title"),
    ("> quoted", "quoted"),
    ("- one\n- two", "one two"),
    ("| a | b |\n|---|:-:|\n| 1 | 2 |", "a b 1 2"),
    ("```python\nx = 1\n```", "x = 1"),
    (r"\boxed{42}", "42"),
    ("$x^{10}$", "x^10"),
    (r"3 \times 10^{5}", "3 \u00d7 10\u2075"),
    ("Newton\u2019s law", "Newton's law"),
    ("\u201cParis\u201d", "'Paris'"),
    ("a \u2013 b", "a - b"),
    ("Par\u200bis", "Paris"),
    ("[1,2,3]", "[1, 2, 3]"),
    ("{1: 2}", "{1:2}"),
    ("f(x, y)", "f(x,y)"),
    ("Paris.", "paris"),
    ("Paris!", "Paris"),
    ("\u5317\u4eac\u3002", "\u5317\u4eac"),
    ("Caf\u00e9", "Cafe\u0301"),
    ("It  is\nParis.", "it is Paris"),
    ("def f():\n\treturn 1", "```\ndef f():\n    return 1\n```"),
    ("**\u5317\u4eac**\u662f\u9996\u90fd", "\u5317\u4eac\u662f\u9996\u90fd"),
    ("\u9996\u90fd\u662f**\u5317\u4eac**\u3002", "\u9996\u90fd\u662f\u5317\u4eac"),
    ("\uc11c\uc6b8**\uc785\ub2c8\ub2e4**", "\uc11c\uc6b8\uc785\ub2c8\ub2e4"),
    ('```json\n{"a": 1}\n```', '{"a": 1}'),
    ("[\n  1,\n  2\n]", "[1,2]"),
    ("```sql\nSELECT 1;\n```", "SELECT 1;"),
    ("Paris\n\n---", "Paris"),
    ("***\nParis", "Paris"),
    ("[Paris](http://x)", "Paris"),
    ("snake\\_case", "snake_case"),
    ("<b>Paris</b>", "Paris"),
    ("AT&amp;T", "AT&T"),
    ("- Paris", "Paris"),
    ("\u2022 Paris", "- Paris"),
    ("|a|b|\n|---|---|\n|1|2|", "| a | b |\n| --- | --- |\n| 1 | 2 |"),
    ("Newton\xb4s", "Newton's"),
    ("\u300c\u5317\u4eac\u300d", "\u5317\u4eac"),
    ("\u2039Paris\u203a", "Paris"),
    ("\u2714\ufe0f", "\u2714"),
    ("\u0663\u066b\u0661\u0664", "3.14"),
    ("\u0665\u0660\u066a", "50%"),
    ("\\{1,2\\}", "{1,2}"),
    ("May 1, 2024", "1 May 2024"),
    ("May 1, 2024", "2024-05-01"),
    ("1'000", "1000"),
    ("3\xd710\u2078", "3 x 10^8"),
    ("3\xb710\u2078", "3e8"),
    ("$H_2O$", "H\u2082O"),
    ("$\\pi$", "\u03c0"),
    ("$x \\le 3$", "x \u2264 3"),
    ("$90^\\circ$", "90\xb0"),
    ("\\frac12", "1/2"),
    ("\\boxed{1,\\!000}", "1000"),
    ("1\\,000", "1000"),
    ("\u33a1", "m\xb2"),
    ("x^{n}", "x^n"),
    ("**Note:**Paris", "Note: Paris"),
    ("5 mL", "5 ml"),
    ("2 l", "2 L"),
    ("16 GB", "16 gb"),
    ("5 KB", "5 kB"),
    ("100 Mbps", "100 mbps"),
    ("2400 MHz", "2400 mhz"),
    ("the pH is low", "The ph is low"),
]
DIFFERENT = [
    ("5 mL", "5 ML"),
    ("5 mHz", "5 MHz"),
    ("10\u2075 years", "105 years"),
    ("x\u00b2", "x2"),
    ("5 mW", "5 MW"),
    ("5mW", "5MW"),
    ("3 Mb", "3 MB"),
    ("2 ms", "2 Ms"),
    ("1.5", "15"),
    ("-5", "5"),
    ("1 + 2", "1 - 2"),
    ("a < b", "a > b"),
    ("\u20ac5", "5"),
    ("[100,200]", "100200"),
    ("007", "7"),
    ("Python 3.10", "Python 3.1"),
    ("2024-05-01", "2024-01-05"),
    ("C++", "C"),
    ("C#", "C"),
    ("__init__", "init"),
    ("safe", "not safe"),
    ("Paris?", "Paris"),
    ("if x:\n    a\nb", "if x:\n    a\n    b"),
    ("if x:\n    None", "if x:\n    none"),
    ("Here:\n```python\nif x:\n    a\nb\n```", "Here:\n```python\nif x:\n    a\n    b\n```"),
    ("x\u207f", "xn"),
    ("2^{n+1}", "2^n+1"),
    ("e^{2x}", "e^2x"),
    ("\\frac{1+2}{3}", "1+2/3"),
    ("5 m\u03a9", "5 M\u03a9"),
    ("5 mSv", "5 MSv"),
    ("5 kbps", "5 kBps"),
    ("5-mW", "5-MW"),
    ("five mW", "five MW"),
    ("5 (mW)", "5 (MW)"),
    ("5 million mW", "5 million MW"),
    ("5 nm", "5 Nm"),
    (">5", "5"),
    ("> 5%", "5%"),
    ("|-5|", "-5"),
    ("5!", "5"),
    ("n!", "n"),
    ("f'(x)", "f(x)"),
    ("5'", '5"'),
    ("5'", "5"),
    ("1\xbd", "11/2"),
    ("Node 18.10", "Node 18.1"),
    ("2**3 and 4**5", "23 and 45"),
]


@pytest.mark.parametrize("pair", SAME, ids=range(len(SAME)))
def test_what_is_written_otherwise_is_the_same(pair: tuple[str, str]) -> None:
    assert canonical(pair[0]) == canonical(pair[1])
    [scored] = score([Answers(pair)], Options(scorers=("snne", "discrete_semantic_entropy")))
    assert scored.n_unique == 1
    assert scored.confidences["snne"] == pytest.approx(1)
    assert scored.confidences["discrete_semantic_entropy"] == pytest.approx(1)


@pytest.mark.parametrize("pair", DIFFERENT, ids=range(len(DIFFERENT)))
def test_what_is_said_otherwise_is_not(pair: tuple[str, str]) -> None:
    assert canonical(pair[0]) != canonical(pair[1])
    [scored] = score([Answers(pair)], Options(scorers=("snne",)))
    assert scored.n_unique == 2
    # Not only for clusters: the similarity sees it too.
    assert scored.confidences["snne"] < 0.95


def test_a_form_is_its_own_form() -> None:
    for left, right in (*SAME, *DIFFERENT):
        for text in (left, right):
            if "\n" not in text and "__" not in text:
                assert canonical(canonical(text)) == canonical(text)


@given(st.text(max_size=60))
def test_any_text_has_a_form_and_tokens(text: str) -> None:
    form = canonical(text)
    assert "  " not in form
    assert set(tokenize_unicode(text)) <= set(form.split(" "))


@pytest.mark.parametrize(
    ("level", "expected"), [("surface", [0, 0, 0]), ("verbatim", [0, 1, 0]), ("paper", [0, 1, 0])]
)
def test_the_level_says_what_is_the_same(level: str, expected: list[int]) -> None:
    distinct, [where] = unique_answers([["Paris", "paris.", "Paris"]], level)  # type: ignore[arg-type]
    assert where.tolist() == expected
    assert distinct[0][0] == "Paris"


def test_the_usual_spelling_stands_for_the_others() -> None:
    for texts in (["PARIS", "Paris", "Paris"], ["Paris", "PARIS", "Paris"]):
        assert unique_answers([texts])[0] == [["Paris"]]


def test_exact_match_takes_the_same_for_the_same() -> None:
    from methods.score_hallucination.scoring.pipeline import JudgedAnswer

    item = Answers(["Paris.", "**Paris**", "Lyon"], judged=JudgedAnswer("paris"))
    [scored] = score([item], Options(scorers=("exact_match",)))
    assert scored.values["exact_match"] == pytest.approx(2 / 3)
    assert "exact_match" in SCORERS
    assert np.isfinite(scored.confidences["exact_match"])
