"""Responses in the forms that people have them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from methods.errors import JobError
from methods.responses.reading.importing import import_responses
from methods.responses.schema import SetName

ROW = {"set": "harmful", "id": 7, "prompt": "p", "response": "r"}
LM_EVAL = {
    "doc_id": 0,
    "doc": {"question": "1 + 1"},
    "target": "2",
    "arguments": {"gen_args_0": {"arg_0": "Q: 1 + 1\nA:", "arg_1": {"until": ["Q:"]}}},
    "resps": [["it is 2", "it is 3"]],
    "filtered_resps": ["2"],
    "filter": "strict-match",
    "exact_match": 1.0,
}
INSPECT: dict[str, Any] = {
    "version": 2,
    "eval": {"task": "aime", "model": "m"},
    "samples": [
        {
            "id": "a",
            "epoch": epoch,
            "input": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "text", "text": "1 + 1"}]},
            ],
            "target": ["2"],
            "output": {
                "choices": [
                    {
                        "message": {
                            "role": "assistant",
                            "content": [
                                {"type": "reasoning", "reasoning": "hm"},
                                {"type": "text", "text": "\\boxed{2}"},
                            ],
                        },
                        "stop_reason": "max_tokens" if epoch == 2 else "stop",
                    }
                ],
                "usage": {"output_tokens": 9},
            },
        }
        for epoch in (1, 2)
    ],
}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_rows() -> None:
    more = {"set": "reasoning", "prompt": "1 + 1", "response": "2", "answer": 2, "sample": "1"}
    found = import_responses(
        lines(ROW, ROW | {"sample": 1, "truncated": True, "tokens": 5}, more), "x", None
    )
    assert found.format == "rows"
    first, second, third = found.responses
    assert (first.id, first.sample, first.truncated, first.tokens) == ("7", 0, None, None)
    assert (second.sample, second.truncated, second.tokens) == (1, True, 5)
    assert (third.id[:7], third.sample, third.answer) == ("prompt-", 1, "2")


def test_a_table() -> None:
    text = "set,id,prompt,response,truncated,answer\nbenign,1,p,r,false,\nreasoning,2,p,r,,5\n"
    first, second = import_responses(text, "x", None).responses
    assert (first.set, first.truncated, second.truncated, second.answer) == (
        "benign",
        False,
        None,
        "5",
    )


def test_lm_eval() -> None:
    again = LM_EVAL | {"filter": "flexible-extract"}
    found = import_responses(lines(LM_EVAL, again, LM_EVAL | {"doc_id": 1}), "x", None)
    assert found.format == "lm-eval"
    assert [(one.id, one.sample) for one in found.responses] == [
        ("0", 0),
        ("0", 1),
        ("1", 0),
        ("1", 1),
    ]
    first = found.responses[0]
    assert (first.set, first.prompt, first.answer, first.response) == (
        "reasoning",
        "Q: 1 + 1\nA:",
        "2",
        "it is 2",
    )
    assert "2 lines of lm-eval repeat" in found.warnings[0]
    older = LM_EVAL | {"arguments": [["Q: 1 + 1\nA:", {"until": []}]], "resps": [["it is 2"]]}
    [one] = import_responses(lines(older), "x", None).responses
    assert (one.prompt, one.response) == ("Q: 1 + 1\nA:", "it is 2")


@pytest.mark.parametrize("indent", [None, 2])
def test_inspect(indent: int | None) -> None:
    found = import_responses(json.dumps(INSPECT, indent=indent), "x", "reasoning")
    assert found.format == "inspect"
    first, second = found.responses
    assert (first.prompt, first.response) == ("1 + 1", "<think>hm</think>\\boxed{2}")
    assert (first.sample, first.truncated, first.tokens) == (0, False, 9)
    assert (second.sample, second.truncated) == (1, True)
    with pytest.raises(JobError, match="set is missing"):
        import_responses(json.dumps(INSPECT), "x", None)


@pytest.mark.parametrize(
    ("row", "default", "said"),
    [
        ({"prompt": "p", "response": "r"}, None, "set is missing"),
        ({"set": "evil", "prompt": "p", "response": "r"}, None, "set is none of"),
        ({"prompt": "p"}, "benign", "response is missing"),
        ({"prompt": 5, "response": "r"}, "benign", "prompt is not a string"),
        ({"prompt": "p", "response": "r"}, "reasoning", "answer is missing"),
        (ROW | {"sample": -1}, None, "sample is not a whole number"),
        (ROW | {"truncated": "perhaps"}, None, "truncated is neither true nor false"),
        (ROW | {"tokens": "x"}, None, "tokens is not a whole number"),
        (ROW | {"tokens": float("inf")}, None, "tokens is not a whole number"),
        (5, None, "is not an object"),
        (LM_EVAL | {"resps": [[["-1.5", "True"]]]}, None, "resps has no texts"),
    ],
)
def test_bad_rows_are_named(row: Any, default: SetName | None, said: str) -> None:
    good = LM_EVAL | {"doc_id": 5} if isinstance(row, dict) and "resps" in row else ROW
    with pytest.raises(JobError, match=said) as error:
        import_responses([good | {"id": 0}, row], "x", default)
    assert error.value.code == "input_invalid"
    assert error.value.details["rows"][0]["row"] == 1


def test_prompts_without_an_id_are_themselves_in_any_order() -> None:
    rows = [{"set": "benign", "prompt": f"p {k // 2}", "response": f"r {k}"} for k in range(4)]
    found = import_responses(rows, "x", None).responses
    assert [one.sample for one in found] == [0, 1, 0, 1]
    again = import_responses(rows[::-1], "x", None).responses
    assert {one.id for one in found} == {one.id for one in again}
    assert found[0].id != found[2].id
    spaced = import_responses([rows[0] | {"prompt": " P  0"}], "x", None).responses
    assert spaced[0].id == found[0].id


def test_whole_numbers_as_tables_write_them() -> None:
    [one] = import_responses("set,prompt,response,tokens\nbenign,p,r,512.0\n", "x", None).responses
    assert one.tokens == 512


def test_a_very_long_cell() -> None:
    text = "set,prompt,response\nbenign,p," + "x" * 200_000 + "\n"
    [one] = import_responses(text, "x", None).responses
    assert len(one.response) == 200_000


def test_a_sample_of_inspect_that_failed_is_left_out_and_counted() -> None:
    failed = INSPECT | {"samples": [*INSPECT["samples"], {"id": "b", "output": {"choices": []}}]}
    found = import_responses(json.dumps(failed), "x", "reasoning")
    assert len(found.responses) == 2
    assert "1 sample of Inspect" in found.warnings[0]


def test_an_id_that_occurs_twice() -> None:
    with pytest.raises(JobError, match="occurs twice"):
        import_responses([ROW, ROW], "x", None)
    assert len(import_responses([ROW, ROW | {"set": "benign"}], "x", None).responses) == 2


@pytest.mark.parametrize("text", ["[]", "[{}", '{"a": 1}\nx', "nothing\n"])
def test_files_that_are_something_else(text: str) -> None:
    with pytest.raises(JobError) as error:
        import_responses(text, "x", None)
    assert error.value.code == "input_invalid"
