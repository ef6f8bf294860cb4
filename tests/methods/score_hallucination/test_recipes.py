"""The recipes for files of other tools in docs/score-hallucination.md, on rows of theirs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from methods.local import LocalContext
from methods.score_hallucination.answers.item_reader import Items
from methods.score_hallucination.schema.items import Item
from methods.score_hallucination.spec import Spec

DOCS = Path(__file__).parents[3] / "docs" / "score-hallucination.md"
ROW = re.compile(r"^\| ([^|]+?) \| `(\{.*\})` \|$", re.MULTILINE)


def recipes() -> dict[str, Any]:
    """The columns of each recipe, by the first word that names the tool."""
    section = DOCS.read_text().split("### Files")[1].split("A message names")[0]
    return {name: json.loads(columns) for name, columns in ROW.findall(section)}


CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Rome"}}
FILES: dict[str, Any] = {
    "UQLM": [{"prompt": "Q", "response": "Paris", "sampled_responses": ["Paris", "Lyon"]}],
    "TriviaQA": [
        {
            "question": "Q",
            "question_id": "tc_1",
            "question_source": "somewhere",
            "answer": {"value": "Paris", "aliases": ["Paris", "City of Light"]},
        }
    ],
    "TruthfulQA": [
        {"question": "Q", "best_answer": "Paris", "correct_answers": ["Paris", "paris"]}
    ],
    "HELM": {
        "adapter_spec": {"method": "generation"},
        "request_states": [
            {
                "instance": {
                    "input": {"text": "Q"},
                    "references": [{"output": {"text": "Paris"}, "tags": ["correct"]}],
                },
                "result": {"completions": [{"text": "Paris"}, {"text": "Lyon"}]},
            }
        ],
    },
    "vLLM": [
        {
            "id": "vllm-1",
            "custom_id": "mine",
            "response": {"status_code": 200, "body": {"choices": [CHOICE, CHOICE | {"index": 1}]}},
            "error": None,
        }
    ],
    "a table": [{"prompt": "Q", "answer_1": "a", "answer_2": "b", "answer_3": "b"}],
}


def read(folder: Path, name: str) -> Item:
    [columns] = [found for title, found in recipes().items() if name in title]
    (folder / "file").write_text(json.dumps(FILES[name], indent=1))
    spec = Spec.model_validate({"input": "file", "columns": columns, "sampler": {"model": "it"}})
    [item] = Items(spec, LocalContext(folder / "job", spec, inputs=folder))
    return item


def test_every_recipe_has_a_file() -> None:
    assert len(recipes()) == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_reads_its_file(tmp_path: Path, name: str) -> None:
    item = read(tmp_path, name)
    if name != "vLLM":
        assert item.prompt == "Q"
    if name in ("TriviaQA", "TruthfulQA", "HELM"):
        assert item.references
        assert item.references[0] == "Paris"
    if name not in ("TriviaQA", "TruthfulQA"):
        assert item.responses is not None
        assert len(item.responses) >= 2


def test_what_no_field_takes_is_kept(tmp_path: Path) -> None:
    assert read(tmp_path, "TriviaQA").metadata == {"question_source": "somewhere"}
    assert read(tmp_path, "UQLM").answer is not None
    assert read(tmp_path, "vLLM").id == "mine"
