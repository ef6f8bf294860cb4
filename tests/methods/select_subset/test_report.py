"""What a user takes away: the report's parts, and the choice as training code takes it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from methods.errors import JobError
from methods.local import LocalContext
from methods.select_subset.job import run
from methods.select_subset.result import Result
from methods.select_subset.spec import Spec
from tests.methods.select_subset.proxied import conversation, uri
from tests.toys.tiny_models import tiny_llama


def select(folder: Path, **more: Any) -> Result:
    spec = Spec.model_validate({"budget": {"count": 6}, "method": "random", **more})
    return run(spec, LocalContext(folder / "job", spec, inputs=folder))


def text(folder: Path, result: Result, key: str) -> str:
    return (folder / "job" / result.artifacts[key].id).read_text()


ROWS: list[dict[str, Any]] = [
    *({"id": f"a{n}", "prompt": f"Say {n}.", "completion": f"{n}!"} for n in range(6)),
    conversation(6, True) | {"image": uri(1)},
    conversation(7, False),
    {"id": "t", "text": "a text to learn"},
]


def test_the_choice_as_training_code_takes_it(tmp_path: Path) -> None:
    what = ["indices", "messages", "llava", "recipe"]
    dataset = {"rows": [*ROWS, {"id": "n", "title": "no conversation"}]}
    result = select(tmp_path, dataset=dataset, budget={"count": 10}, output={"what": what})
    messages = [json.loads(line) for line in text(tmp_path, result, "messages").splitlines()]
    llava = json.loads(text(tmp_path, result, "llava"))
    assert any("1 chosen row" in warning for warning in result.warnings)
    places = [row for row in result.indices or [] if row != 9]
    assert len(messages) == len(llava) == 9
    for row, found, other in zip(places, messages, llava, strict=True):
        if row < 6:
            turns = [
                {"role": "user", "content": f"Say {row}."},
                {"role": "assistant", "content": f"{row}!"},
            ]
            assert found == {"messages": turns}
            assert other["id"] == f"a{row}"
            assert [turn["from"] for turn in other["conversations"]] == ["human", "gpt"]
        elif row == 6:
            assert found["messages"][0]["content"].startswith("<image>")
            assert found["images"] == [uri(1)]
            assert other["image"] == uri(1)
        elif row == 8:
            assert found == {"text": "a text to learn"}


def test_images_that_would_make_the_files_too_large_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from methods.select_subset import training_files

    monkeypatch.setattr(training_files, "MAX_BYTES", 1000)
    rows = [conversation(n, True) | {"image": uri(n)} for n in range(8)]
    result = select(tmp_path, dataset={"rows": rows})
    assert not {"messages", "recipe"} & set(result.artifacts)
    assert any("with the images in them" in warning for warning in result.warnings)


def test_without_conversations_there_is_nothing_to_train_on(tmp_path: Path) -> None:
    result = select(tmp_path, dataset={"rows": [{"id": n, "a": n} for n in range(9)]})
    assert not {"messages", "recipe"} & set(result.artifacts)
    assert not result.warnings


@pytest.mark.filterwarnings("ignore")
def test_the_recipe_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    model = tiny_llama(tmp_path / "model", hidden=64)
    result = select(tmp_path, dataset={"rows": ROWS[:6]})
    (tmp_path / "messages.jsonl").write_text(text(tmp_path, result, "messages"))
    recipe = text(tmp_path, result, "recipe")
    code = re.search(r"```python\n(.*?)```", recipe, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    # This machine has no GPU, and trl takes one for granted.
    here = code[1].replace('output_dir="trained"', 'output_dir="trained", use_cpu=True, bf16=False')
    exec(here.replace('"MODEL"', repr(str(model))), {})
    assert list((tmp_path / "trained").glob("checkpoint-*"))
    # What LLaMA-Factory and axolotl are told parses.
    info = re.search(r"```json\n(.*?)```", recipe, re.DOTALL)
    assert info is not None
    assert json.loads(info[1])["subset"]["file_name"] == "messages.jsonl"
    yaml = pytest.importorskip("yaml")
    settings = re.search(r"```yaml\n(.*?)```", recipe, re.DOTALL)
    assert settings is not None
    assert yaml.safe_load(settings[1])["datasets"][0]["path"] == "messages.jsonl"


def clustered(count: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 5)) * 10
    values = centres[np.arange(count) % 4] + rng.normal(size=(count, 5)) * 0.01
    return {"kind": "trajectory", "values": values.tolist()}


def test_rows_of_clusters_are_shown(tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "prompt": f"q{n % 4}", "completion": f"a{n}"} for n in range(40)]
    result = select(
        tmp_path,
        dataset={"rows": rows},
        features=clustered(),
        method="xmas",
        params={"clusters": 4},
    )
    block = next(one for one in result.blocks if one.kind == "samples")
    assert block.samples is not None
    assert len(block.samples) == 4
    chosen = set(result.indices or [])
    for sample in block.samples:
        kinds = set()
        for group in sample.groups:
            for one in group.texts:
                number = int(one.text.split(":")[0][1:])
                kinds.add(number % 4)
                assert (number in chosen) == (group.label == "chosen")
                assert f"q{number % 4} / a{number}" in one.text
        assert len(kinds) == 1


def test_stability_over_seeds(tmp_path: Path) -> None:
    score = {"kind": "score", "values": list(range(40))}
    ranked = select(tmp_path, features=score, method="el2n")
    assert ranked.stability is not None
    assert (ranked.stability.share, ranked.stability.least) == (1.0, 1.0)
    random = select(tmp_path, dataset={"rows": [{"id": n} for n in range(40)]})
    assert random.stability is not None
    assert random.stability.by_chance == pytest.approx(6 / 40)
    assert random.stability.share < 0.5


def test_the_way_from_the_input_to_the_choice_adds_up(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0] | {"id": "copy"}, {"id": ""}]
    result = select(tmp_path, dataset={"rows": rows}, duplicates="drop", on_bad_rows="skip")
    block = next(one for one in result.blocks if getattr(one, "title", "").startswith("From the"))
    counts = {row["what"]: row["rows"] for row in block.rows}
    dropped = counts["Bad rows"] + counts["Exact copies of other rows"]
    assert counts["Candidates"] == counts["Rows of the input"] - dropped - counts.get(
        "Near copies of other rows", 0
    )
    assert counts["Rows chosen"] == 6


def test_a_damaged_row_is_no_reason_to_fail_the_report(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ROWS] + ["{broken"]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    result = select(tmp_path, dataset={"input": "rows.jsonl"}, on_bad_rows="skip")
    assert result.validation.bad_rows == 1
    with pytest.raises(JobError, match="is not JSON"):
        select(tmp_path, dataset={"input": "rows.jsonl"})
