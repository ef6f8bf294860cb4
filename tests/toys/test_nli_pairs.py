"""The pairs that the benchmark `tiny_nli` learns from hold nothing of the held-out ones."""

from __future__ import annotations

import json
import re
from calendar import month_name

import pytest

from tests.toys.nli_pairs import EXAMPLES, LABELS, Pair, Source


def names(pairs: list[Pair]) -> set[str]:
    """Words with a capital inside a text."""
    texts = [text for pair in pairs for text in (pair.premise, pair.hypothesis)]
    return {word for text in texts for word in re.findall(r"(?<=\w )[A-Z][a-z]+", text)}


@pytest.fixture(scope="module")
def trained() -> list[Pair]:
    return Source(0, held_out=False).pairs(3000)


def test_pairs_come_again_and_have_every_label_alike(trained: list[Pair]) -> None:
    assert Source(0, held_out=False).pairs(3000) == trained != Source(1, held_out=False).pairs(3000)
    labels = [pair.label for pair in trained]
    assert [labels.count(label) for label in LABELS] == [1000] * 3
    assert len({pair[:2] for pair in trained}) == 3000


@pytest.mark.parametrize("unseen_relations", [False, True])
def test_names_are_not_shared_by_the_splits(trained: list[Pair], unseen_relations: bool) -> None:
    held_out = Source(0, held_out=True, unseen_relations=unseen_relations).pairs(3000)
    assert not names(trained) & names(held_out) - {*month_name, "Of", "The"}


def test_no_pair_is_about_the_answers_that_are_scored(trained: list[Pair]) -> None:
    items = [json.loads(line) for line in EXAMPLES.read_text().splitlines()]
    told = {reference for item in items for reference in item["references"]}
    texts = "\n".join(text for pair in trained for text in pair[:2])
    assert not [name for name in told if re.search(rf"\b{re.escape(name)}\b", texts)]
