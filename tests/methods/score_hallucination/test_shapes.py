"""Items in the shapes that people have them in, inline and in files."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from methods.errors import JobError
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.result import Result
from methods.score_hallucination.schema.items import Answer, Item
from methods.score_hallucination.schema.spelling import spelled
from methods.score_hallucination.spec import Spec


def run(folder: Path, data: bytes | None = None, **spec: Any) -> Result:
    if data is not None:
        (folder / "items.any").write_bytes(data)
        spec = {"input": "items.any", **spec}
    parsed = Spec.model_validate(spec)
    return job.run(parsed, LocalContext(folder / "job", parsed, inputs=folder))


CHOICE = {
    "index": 0,
    "finish_reason": "length",
    "message": {"role": "assistant", "content": "Canberra"},
    "logprobs": {"content": [{"token": "Canberra", "logprob": -0.1, "top_logprobs": []}]},
}
COMPLETION = {
    "index": 0,
    "text": "Canberra",
    "finish_reason": "stop",
    "logprobs": {"tokens": ["Can", "berra"], "token_logprobs": [-0.1, -0.2], "top_logprobs": None},
}


@pytest.mark.parametrize(
    "responses",
    [
        ["Canberra", "Canberra"],
        [{"text": "Canberra"}, "Canberra"],
        [CHOICE, CHOICE],
        {"id": "x", "object": "chat.completion", "choices": [CHOICE, CHOICE]},
        [{"choices": [CHOICE]}, {"choices": [COMPLETION]}],
        [{"role": "assistant", "content": "Canberra"}, COMPLETION],
    ],
    ids=range(6),
)
def test_responses_as_they_come(responses: Any) -> None:
    item = Item.model_validate({"responses": responses})
    assert item.responses is not None
    assert [answer.text for answer in item.responses] == ["Canberra", "Canberra"]
    # A spec is kept and read again.
    assert Item.model_validate_json(item.model_dump_json()) == item


def test_a_choice_brings_its_log_probabilities() -> None:
    item = Item.model_validate({"responses": [COMPLETION], "answer": {"choices": [CHOICE]}})
    assert item.responses is not None
    assert item.responses[0].token_logprobs == [-0.1, -0.2]
    assert item.answer is not None
    assert item.answer.token_logprobs == [-0.1]
    assert item.answer.finish_reason == "length"


@pytest.mark.parametrize(
    "given", [[{"message": {"content": 3}}], [{"choices": [{}]}], [True], [None]]
)
def test_what_is_no_answer_is_named(given: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Item.model_validate({"responses": given})
    assert caught.value.errors()[0]["loc"][0] == "responses"


def test_thoughts_are_no_part_of_an_answer() -> None:
    answer = Answer(
        text="<think>hm, well</think>Paris",
        tokens=["<think>", "hm, well", "</think>", "Paris"],
        token_logprobs=[-1.0, -2.0, -3.0, -0.5],
    )
    assert (answer.text, answer.tokens, answer.token_logprobs) == ("Paris", ["Paris"], [-0.5])
    assert answer.thoughts == 23
    assert Answer(text="a <b>word</b>").thoughts == 0


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["The", " end"], ["The", " end"]),
        (["The", "\u0120end"], ["The", " end"]),
        (["\u2581The", "\u2581end"], [" The", " end"]),
        (["The", "en", "##d"], ["The", " en", "d"]),
        (["The</w>", "end</w>"], ["The ", "end"]),
        (["The", " end", "</s>"], ["The", " end", ""]),
        (["The", " end", "<|im_end|>", "\n"], ["The", " end", "", ""]),
        (["The", " end", " of", " it"], None),
        (["An", " end"], None),
    ],
)
def test_tokens_spell_the_text_or_are_refused(
    tokens: list[str], expected: list[str] | None
) -> None:
    assert spelled("The end", tokens) == expected
    if expected is None:
        with pytest.raises(ValidationError, match="tokens spell"):
            Answer(text="The end", tokens=tokens)


def test_bytes_of_tokens_are_read() -> None:
    # As GPT-2's tokenizer writes the two bytes of a letter.
    assert spelled("\u00e9t\u00e9", ["\u00c3", "\u00a9", "t", "\u00c3\u00a9"]) == [
        "",
        "\u00e9",
        "t",
        "\u00e9",
    ]


def test_turns_in_place_of_a_prompt() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
    ]
    item = Item.model_validate({"messages": turns, "responses": ["a"]})
    assert item.asked == turns
    assert item.question == "system: Be brief.\n\nuser: Why?"
    with pytest.raises(ValidationError, match="not both"):
        Item.model_validate({"messages": turns, "prompt": "Why?", "responses": ["a"]})


def test_metadata_comes_back(tmp_path: Path) -> None:
    data = {"trace": "t-1", "nested": {"a": [1, None]}}
    result = run(tmp_path, items=[{"responses": ["a", "b"], "metadata": data}])
    assert result.items is not None
    assert result.items[0].metadata == data


ROWS = [
    {"question": "Q1", "drawn": ["a", "a"], "kind": "one", "gold": {"aliases": ["a"]}},
    {"question": "Q2", "drawn": ["a", "b"], "kind": "two", "gold": {"aliases": ["b", "c"]}},
]
COLUMNS = {"prompt": "question", "responses": "drawn", "references": "gold.aliases"}


def as_csv(separator: str = ",") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [*ROWS[0]], delimiter=separator)
    writer.writeheader()
    writer.writerows(
        {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in ROWS
    )
    return text.getvalue().encode()


def as_parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink)
    return sink.getvalue()


LINES = b"\n".join(json.dumps(row).encode() for row in ROWS)


@pytest.mark.parametrize(
    "data",
    [
        LINES,
        b"\xef\xbb\xbf" + LINES + b"\n\n",
        json.dumps(ROWS, indent=2).encode(),
        json.dumps({"data": ROWS, "version": 1}, indent=1).encode(),
        json.dumps({"data": ROWS}).encode(),
        gzip.compress(LINES),
        gzip.compress(json.dumps(ROWS).encode()),
        as_parquet,
    ],
    ids=["lines", "bom", "array", "object", "one-line", "gzip", "gzip-array", "parquet"],
)
def test_a_file_is_known_by_its_content(tmp_path: Path, data: Any) -> None:
    result = run(tmp_path, data() if callable(data) else data, columns=COLUMNS)
    assert result.items is not None
    assert [item.prompt for item in result.items] == ["Q1", "Q2"]
    assert [item.n_unique for item in result.items] == [1, 2]
    assert [(item.metadata or {})["kind"] for item in result.items] == ["one", "two"]


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_a_table_has_json_in_its_cells(tmp_path: Path, separator: str) -> None:
    columns = {"prompt": "question", "responses": "drawn"}
    result = run(tmp_path, as_csv(separator), columns=columns)
    assert result.items is not None
    assert [item.n_unique for item in result.items] == [1, 2]


def test_several_columns_make_a_list(tmp_path: Path) -> None:
    data = b"prompt,first,second,label\nQ,a,b,1\nR,c,c,0\n"
    result = run(tmp_path, data, columns={"responses": ["first", "second"]})
    assert result.items is not None
    assert [item.n_unique for item in result.items] == [2, 1]
    assert [item.label for item in result.items] == [1, 0]


def test_paths_go_through_lists(tmp_path: Path) -> None:
    row = {"out": {"choices": [{"text": "a"}, {"text": "b"}]}, "id": "x"}
    result = run(tmp_path, json.dumps(row).encode(), columns={"responses": "out.choices[].text"})
    assert result.items is not None
    assert (result.items[0].id, result.items[0].n_unique) == ("x", 2)


GOOD = b'{"responses": ["a", "b"]}'


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (GOOD + b"\n" + GOOD + b"\nxx", "first is line 3: column 1 is no JSON"),
        (GOOD + b"\n[1]", "line 2: is no object|line 2: "),
        (GOOD + b"\n{'responses': ['a']}", "write it with json.dumps"),
        (b'{"responses": ["a"], "trace": 1}', "put what is yours into `metadata`"),
        (b"PK\x03\x04xx", "zip archive"),
        (b"%PDF-1.7", "a PDF"),
        (b"<!DOCTYPE html><html>", "a web page"),
        ("\ufeffa".encode("utf-16"), "UTF-16"),
        (b"[1, 2", "begins like a JSON array"),
        (b"[1, 2]", "row 1: is no object"),
        (b"question,drawn\nQ,a\n", "must name a field of items"),
        (b"responses,label\na\n", "cells of the header"),
        (gzip.compress(GOOD)[:-9], "gzipped file is broken"),
        (b'\xff{"responses": ["a"]}', "no UTF-8|no JSON"),
    ],
    ids=range(14),
)
def test_a_message_says_where_and_what_to_do(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        run(tmp_path, data)
    assert caught.value.code == "input_invalid"


def test_bad_rows_can_be_left_out(tmp_path: Path) -> None:
    data = GOOD + b'\n{"responses": []}\nxx\n' + GOOD
    result = run(tmp_path, data, on_bad_rows="skip")
    assert result.summary.n_items == 2
    assert result.summary.n_bad_rows == 2
    assert any("2 rows of the file left out" in one for one in result.warnings)
    assert result.bad_rows is not None
    listed = (tmp_path / "job/artifacts/bad_rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in listed] == [2, 3]
    with pytest.raises(JobError, match="2 of 2 lines are not valid"):
        run(tmp_path, b"xx\nyy", on_bad_rows="skip")


def test_a_prompt_of_a_megabyte(tmp_path: Path) -> None:
    items = [{"prompt": "x" * 1_000_000, "responses": ["a", "b"]}]
    assert run(tmp_path, items=items).summary.n_items == 1
    with pytest.raises(ValidationError, match="at most 1000000"):
        Item.model_validate({"prompt": "x" * 1_000_001})


def test_slices_have_figures_of_their_own(tmp_path: Path) -> None:
    items = []
    for k in range(24):
        several = k % 2 == 0
        items.append(
            {
                "responses": ["a", "b" if several else "a", "a"],
                "label": int(several) if k < 12 else k % 3 == 0,
                "metadata": {"kind": "early" if k < 12 else "late"} if k else None,
            }
        )
    result = run(tmp_path, items=items, slices=["metadata.kind"])
    assert [(one.value, one.n_items) for one in result.summary.slices] == [
        ("late", 12),
        ("early", 11),
    ]
    late, early = (one.scorers["snne"] for one in result.summary.slices)
    assert early.evaluation is not None
    assert early.evaluation.auroc.value == 1.0
    assert late.evaluation is not None
    assert late.evaluation.auroc.value is not None
    assert late.evaluation.auroc.value < 1.0
    assert any("1 of 24 items have no metadata.kind" in one for one in result.warnings)


def test_answers_that_are_all_the_same_are_warned_of(tmp_path: Path) -> None:
    items = [{"prompt": f"q{k}", "responses": [f"a{k}"] * 4} for k in range(6)]
    assert any(one.startswith("no_diversity") for one in run(tmp_path, items=items).warnings)
    items[0]["responses"] = ["a", "b", "c", "d"]
    assert not any(one.startswith("no_diversity") for one in run(tmp_path, items=items).warnings)


def test_other_states_are_warned_of(tmp_path: Path) -> None:
    items: list[dict[str, Any]] = [
        {"prompt": "q", "responses": ["a", "b"], "label": k % 2} for k in range(6)
    ]
    items[0]["responses"] = ["", "", "a"]
    items[1]["responses"] = [{"text": "a", "token_logprobs": [-9999.0]}, "b"]
    found = " ".join(run(tmp_path, items=items).warnings)
    assert "empty: in 1 items" in found
    assert "unknown_logprobs: in 1 items" in found
    assert "different_n: items have 2 to 3 answers" in found
    assert "few_prompts: the 6 labelled items have 1" in found


def test_what_unpacks_to_far_more_than_was_sent_is_refused(tmp_path: Path) -> None:
    bomb = gzip.compress((b'{"responses": ["' + b"a" * 30_000 + b'"]}\n') * 5000)
    with pytest.raises(JobError, match="gzipped file unpacks to") as caught:
        run(tmp_path, bomb)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Paris", ["<s>", "\u2581Paris"]),
        ("Paris", ["<|begin_of_text|>", "Paris"]),
        ("here", ["[CLS]", "here", "[SEP]"]),
        ("a\nb", ["\u2581a", "<0x0A>", "b"]),
        ("na\xefve", ["na", "\ufffd", "\ufffd", "ve"]),
        ("x\ufffd", ["x", "\ufffd"]),
    ],
)
def test_tokens_with_marks_of_all_kinds(text: str, tokens: list[str]) -> None:
    found = spelled(text, tokens)
    assert found is not None
    assert "".join(found).strip() == text
    assert len(found) == len(tokens)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Use the </thought> tag", "Use the </thought> tag"),
        ("The tag is </think> in HTML", "The tag is </think> in HTML"),
        ("<think>a</think><think>b</think>Paris", "Paris"),
        ("<think>..</think >Paris", "Paris"),
        ("x\n</think>\nParis", "Paris"),
        ("<seed:think>a</seed:think>Paris", "Paris"),
        ("<|START_THINKING|>x<|END_THINKING|>Paris", "Paris"),
        ({"text": "Paris"}, "Paris"),
    ],
)
def test_thoughts_and_what_only_looks_like_them(content: Any, text: str) -> None:
    item = Item.model_validate({"responses": [{"message": {"content": content}}]})
    assert item.responses is not None
    assert item.responses[0].text == text


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ([5, 5.5], ["5", "5.5"]),
        ([{"response": "Paris"}], ["Paris"]),
        ([{"generated_text": "Paris"}], ["Paris"]),
        ({"response": {"body": {"choices": [{"text": "Paris"}]}}}, ["Paris"]),
        (
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": "P"}]}]},
            ["P"],
        ),
    ],
    ids=range(5),
)
def test_answers_of_other_servers(given: Any, texts: list[str]) -> None:
    item = Item.model_validate({"responses": given})
    assert item.responses is not None
    assert [answer.text for answer in item.responses] == texts


def test_numbers_and_what_is_missing() -> None:
    item = Item.model_validate(
        {"id": 7, "responses": ["a"], "references": [1969, None], "label": " True", "answer": 5}
    )
    assert (item.id, item.references, item.label) == ("7", ["1969"], 1)
    assert item.answer is not None
    assert item.answer.text == "5"
    with pytest.raises(ValidationError, match="number 1 is null"):
        Item.model_validate({"responses": ["a", None]})


def test_plain_lists_of_log_probabilities() -> None:
    answer = Item.model_validate(
        {"responses": [{"text": "Paris", "logprobs": [-1.0]}, {"text": "P", "logprobs": [-1e300]}]}
    ).responses
    assert answer is not None
    assert [one.token_logprobs for one in answer] == [[-1.0], [None]]
    entries = [{"token": "Paris", "logprob": -0.5}]
    told = Item.model_validate({"responses": [{"text": "Paris", "logprobs": entries}]}).responses
    assert told is not None
    assert (told[0].tokens, told[0].token_logprobs) == (["Paris"], [-0.5])
    with pytest.raises(ValidationError, match="1 top_logprobs, but 2 token_logprobs"):
        Answer(text="a", token_logprobs=[-1, -1], top_logprobs=[[-1, -2]])


@pytest.mark.parametrize(
    "data",
    [
        b"prompt,responses\nQ,\"['a', 'b']\"\n",
        b'Prompt|Responses\nQ|["a", "b"]\n',
        b'{"id": "x", "data": [{"responses": ["a", "b"]}]}',
        b'prompt,responses\rQ,"[""a"", ""b""]"\r',
    ],
    ids=range(4),
)
def test_tables_as_other_programs_write_them(tmp_path: Path, data: bytes) -> None:
    result = run(tmp_path, data)
    assert result.items is not None
    assert [item.n for item in result.items] == [2]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("prompt;responses\nGr\xf6\xdfe?;gro\xdf\n".encode("cp1252"), "no UTF-8"),
        (gzip.compress(GOOD * 2000)[:40] + b"\0" * 40, "gzipped file is broken"),
        (b'{"responses": ["a"], "label": ' + b"1" * 5000 + b"}", "not valid"),
        (b"responses,responses\na,b\n", "named 'responses'"),
        (b'responses\tlabel\n"Hi" he said\t1\n', "written twice"),
    ],
    ids=range(5),
)
def test_broken_files_are_named(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(JobError, match=message):
        run(tmp_path, data)


def test_half_of_a_character_is_replaced(tmp_path: Path) -> None:
    data = b'[{"prompt": "\\ud800", "responses": ["a", "b"]}]'
    assert run(tmp_path, data).summary.n_items == 1


@pytest.mark.parametrize(
    "tokens",
    [["a", "\\xc3", "\\xa9", "b"], ["a", "", "", "b"], ["x"], ["b", "a"], ["a\u00e9", "b"]],
)
def test_drawn_tokens_are_aligned_with_their_text(tokens: list[str]) -> None:
    found = spelled("a\u00e9b", tokens, more=True)
    assert found is not None
    assert len(found) == len(tokens)
    assert "".join(found) == "a\u00e9b"
