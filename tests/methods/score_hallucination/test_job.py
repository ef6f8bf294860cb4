"""Whole runs of score-hallucination through the local context and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import ValidationError

from methods.__main__ import main
from methods.errors import JobCancelled, JobError
from methods.local import LocalContext
from methods.score_hallucination import job
from methods.score_hallucination.answers import item_files, item_reader
from methods.score_hallucination.result import ItemResult, Result
from methods.score_hallucination.schema.items import MAX_ANSWERS, MAX_CHARACTERS
from methods.score_hallucination.similarity import rouge_l
from methods.score_hallucination.spec import Spec

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "qa-gemma.jsonl"
ALL = [
    "snne",
    "wsnne",
    "semantic_entropy",
    "discrete_semantic_entropy",
    "predictive_entropy",
    "num_semantic_sets",
    "lexical_similarity",
]

Json = dict[str, Any]


def answer(text: str, logprobs: list[float] | None = None) -> Json:
    return {"text": text} if logprobs is None else {"text": text, "token_logprobs": logprobs}


def item(*texts: str, **fields: Any) -> Json:
    """An item whose answers have log-probabilities."""
    responses = [answer(text, [-0.5 - k / 8]) for k, text in enumerate(texts)]
    return {"responses": responses, **fields}


def labelled_items(count: int = 24) -> list[Json]:
    """Half of them right and consistent, half of them wrong and less so."""
    items = []
    for k in range(count):
        wrong = k % 2
        texts = [f"the answer is {j * wrong * (k % 3) % 4} or so {k}" for j in range(4)]
        items.append(item(*texts, id=f"q{k}", label=wrong))
    return items


def run(folder: Path, **spec: Any) -> Result:
    parsed = Spec.model_validate_json(json.dumps(spec))
    return job.run(parsed, LocalContext(folder, parsed))


def scored(result: Result) -> list[ItemResult]:
    assert result.items is not None
    return result.items


def write_lines(folder: Path, lines: list[Json | str | bytes]) -> str:
    encoded = [
        line
        if isinstance(line, bytes)
        else line.encode()
        if isinstance(line, str)
        else json.dumps(line).encode()
        for line in lines
    ]
    (folder / "items.jsonl").write_bytes(b"\n".join(encoded) + b"\n")
    return "items.jsonl"


def rows(error: JobError) -> list[Json]:
    return cast("list[Json]", error.details["rows"])


# -- runs ------------------------------------------------------------------------------------


def test_inline_items(tmp_path: Path) -> None:
    result = run(
        tmp_path,
        items=[
            item("Canberra", "canberra ", "Sydney", id="au", prompt="Capital?"),
            item("a b", "a c", "d", answer=answer("a b")),
        ],
        scorers=ALL,
    )
    first, second = scored(result)
    assert (first.id, first.prompt, first.n, first.n_unique) == ("au", "Capital?", 3, 2)
    assert [cluster.members for cluster in first.clusters] == [[0, 1], [2]]
    assert [cluster.size for cluster in first.clusters] == [2, 1]
    assert all(c.representative in c.members for i in scored(result) for c in i.clusters)
    assert (second.id, second.answer, second.n_unique) == ("1", "a b", 3)
    for entry in scored(result):
        assert list(entry.scores) == ALL
        for score in entry.scores.values():
            assert score.valid
            assert score.reason is None
            assert score.direction == "uncertainty"
            assert score.value is not None
            assert 0 <= cast(float, score.confidence) <= 1
    assert result.items_artifact is None
    assert result.summary.n_items == 2
    assert result.summary.n_answers == 6
    assert result.summary.labels == {}
    assert all(s.evaluation is None for s in result.summary.scorers.values())
    assert result.provenance.method == "score-hallucination/2"


def test_the_numbers_of_a_result_by_hand(tmp_path: Path) -> None:
    """Answers a, a, b: clusters of 2/3 and 1/3, SNNE from eq. (3) of the paper."""
    from math import e, log

    result = run(tmp_path, items=[item("a", "a", "b")], scorers=ALL)
    values = {name: score.value for name, score in scored(result)[0].scores.items()}
    p = [e**-0.5, e**-0.625, e**-0.75]
    share = (p[0] + p[1]) / sum(p)
    rows_of_sums = [log(2 * e + 1), log(2 * e + 1), log(e + 2)]
    assert values == pytest.approx(
        {
            "snne": -sum(rows_of_sums) / 3,
            "wsnne": -sum(w * r for w, r in zip(p, rows_of_sums, strict=True)) / sum(p),
            "semantic_entropy": -share * log(share) - (1 - share) * log(1 - share),
            "discrete_semantic_entropy": log(3) - 2 / 3 * log(2),
            "predictive_entropy": 0.625,
            "num_semantic_sets": 2,
            "lexical_similarity": -1 / 3,
        }
    )


def test_an_input_file_gives_what_inline_items_give(tmp_path: Path) -> None:
    items = labelled_items()
    name = write_lines(tmp_path, [*items[:3], "", "  ", *items[3:]])
    from_file = run(tmp_path, input=name, scorers=ALL)
    inline = run(tmp_path, items=items, scorers=ALL)
    assert from_file.model_dump() == inline.model_dump()
    crlf = (tmp_path / name).read_bytes().replace(b"\n", b"\r\n").removesuffix(b"\r\n")
    (tmp_path / "crlf.jsonl").write_bytes(crlf)
    assert run(tmp_path, input="crlf.jsonl", scorers=ALL).model_dump() == inline.model_dump()
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "items.jsonl").read_bytes())
    assert run(tmp_path, input="bom.jsonl", scorers=ALL).model_dump() == inline.model_dump()


def test_many_items_are_scored_in_chunks_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = labelled_items(25)
    whole = run(tmp_path, items=items, scorers=ALL)
    monkeypatch.setattr(item_reader, "_CHUNK_ITEMS", 4)
    spec = Spec.model_validate({"items": items, "scorers": ALL})
    seen: list[tuple[str, int, int, str]] = []
    context = LocalContext(tmp_path, spec, lambda *args: seen.append(args))
    assert job.run(spec, context).model_dump() == whole.model_dump()
    done = [(current, total) for phase, current, total, _ in seen if phase == "scoring"]
    assert done == [(4 * k, 25) for k in range(1, 7)] + [(25, 25)]


def test_a_cancelled_run_stops(tmp_path: Path) -> None:
    class Cancelled(LocalContext):
        def progress(self, phase: str, current: int, total: int, unit: str = "items") -> None:
            raise JobCancelled

    spec = Spec.model_validate({"items": labelled_items()})
    with pytest.raises(JobCancelled):
        job.run(spec, Cancelled(tmp_path, spec))


def test_the_whole_result_is_determined_by_the_seed(tmp_path: Path) -> None:
    items = labelled_items(30)
    runs = [
        run(tmp_path / str(k), items=items, scorers=ALL, seed=seed)
        for k, seed in enumerate((5, 5, 6))
    ]
    first, second, other = (result.model_dump_json() for result in runs)
    assert first == second
    assert first != other
    for name in ALL:
        five, six = (r.summary.scorers[name].evaluation for r in (runs[0], runs[2]))
        assert five is not None
        assert six is not None
        assert five.auroc.value == six.auroc.value
    assert runs[0].items == runs[2].items


def test_a_large_result_moves_to_an_artifact(tmp_path: Path) -> None:
    items = [item("a b", "a c", id="i" * 200 + str(k)) for k in range(1000)]
    result = run(tmp_path, items=items)
    assert result.items is None
    artifact = result.items_artifact
    assert artifact is not None
    assert (artifact.name, artifact.media_type) == ("items.jsonl", "application/x-ndjson")
    stored = (tmp_path / artifact.id).read_bytes()
    assert len(stored) == artifact.size > 256 * 1024
    assert sha256(stored).hexdigest() == artifact.sha256
    entries = [ItemResult.model_validate_json(line) for line in stored.splitlines()]
    assert [entry.id for entry in entries] == [entry["id"] for entry in items]
    assert result.summary.n_items == 1000
    few = run(tmp_path / "few", items=items[:20])
    assert few.items == entries[:20]


# -- options ---------------------------------------------------------------------------------


def test_precomputed_similarity_and_how_it_is_made_symmetric(tmp_path: Path) -> None:
    entry = item("a", "b", similarity=[[1, 0.2], [0.8, 1]])
    by_symmetry: dict[str, Any] = {}
    for symmetrize in ("none", "mean", "min", "max"):
        result = run(
            tmp_path,
            items=[entry],
            similarity={"kind": "precomputed", "symmetrize": symmetrize},
            clustering={"algorithm": "greedy", "threshold": 0.5},
            scorers=["snne", "num_semantic_sets"],
        )
        scores = scored(result)[0].scores
        by_symmetry[symmetrize] = (scores["snne"].value, scores["num_semantic_sets"].value)
    from math import exp, log

    def snne(left: float, right: float) -> float:
        return -(log(exp(1) + exp(left)) + log(exp(1) + exp(right))) / 2

    assert by_symmetry["none"] == pytest.approx((snne(0.2, 0.8), 2))
    assert by_symmetry["mean"] == pytest.approx((snne(0.5, 0.5), 1))
    assert by_symmetry["min"] == pytest.approx((snne(0.2, 0.2), 2))
    assert by_symmetry["max"] == pytest.approx((snne(0.8, 0.8), 1))


def test_a_threshold_clusters_by_similarity_and_the_algorithms_differ(tmp_path: Path) -> None:
    chain = item("a b", "b c", "c d", "d e")
    clusters: dict[str, Any] = {}
    for algorithm in ("greedy", "components"):
        result = run(tmp_path, items=[chain], clustering={"algorithm": algorithm, "threshold": 0.5})
        clusters[algorithm] = [cluster.members for cluster in scored(result)[0].clusters]
    assert clusters == {"greedy": [[0, 1], [2, 3]], "components": [[0, 1, 2, 3]]}


def test_exact_similarity_ignores_overlap(tmp_path: Path) -> None:
    entry = item("a b c", "a b d", "A  B C")
    result = run(tmp_path, items=[entry], similarity={"kind": "exact"}, scorers=["snne"])
    same = run(tmp_path, items=[item("x", "y", "x")], similarity={"kind": "exact"})
    assert scored(result)[0].scores == scored(same)[0].scores


# -- what cannot be computed -----------------------------------------------------------------

NEEDS_TWO = [name for name in ALL if name != "predictive_entropy"]
WHITE_BOX = ["wsnne", "semantic_entropy", "predictive_entropy"]


def assert_undefined(entry: ItemResult, names: list[str], reason: str) -> None:
    for name, score in entry.scores.items():
        if name in names:
            assert not score.valid
            assert score.value is None
            assert score.confidence is None
            assert reason in cast(str, score.reason)
        else:
            assert score.valid, name


def test_one_answer_is_not_certain_but_undefined(tmp_path: Path) -> None:
    result = run(tmp_path, items=[item("Canberra")], scorers=ALL)
    assert_undefined(scored(result)[0], NEEDS_TWO, "at least 2 answers")
    summary = result.summary.scorers["snne"]
    assert (summary.n_valid, summary.mean, summary.min) == (0, None, None)


@pytest.mark.parametrize("texts", [("", ""), ("", " \n", "\t")])
def test_answers_that_all_say_nothing_are_undefined(tmp_path: Path, texts: tuple[str, ...]) -> None:
    result = run(tmp_path, items=[item(*texts)], scorers=ALL)
    assert_undefined(scored(result)[0], NEEDS_TWO, "empty")


def test_some_empty_answers_are_answers(tmp_path: Path) -> None:
    result = run(tmp_path, items=[item("", "Canberra", "")], scorers=ALL)
    entry = scored(result)[0]
    assert_undefined(entry, [], "")
    assert [cluster.members for cluster in entry.clusters] == [[0, 2], [1]]


@pytest.mark.parametrize("missing", [None, []])
def test_missing_log_probabilities_are_no_zeros(
    tmp_path: Path, missing: list[float] | None
) -> None:
    entry = {"responses": [answer("a", [-1.0]), answer("b", [-1.0]), answer("c", missing)]}
    result = run(tmp_path, items=[entry, item("a", "b")], scorers=ALL)
    assert_undefined(scored(result)[0], WHITE_BOX, "responses/2")
    assert_undefined(scored(result)[1], [], "")
    assert result.summary.scorers["wsnne"].n_valid == 1
    assert result.summary.scorers["snne"].n_valid == 2


def test_undefined_scores_take_no_part_in_the_evaluation(tmp_path: Path) -> None:
    items = [*labelled_items(10), item("alone", label=1), item("", "", label=1)]
    result = run(tmp_path, items=items, scorers=["snne", "predictive_entropy"])
    without = run(tmp_path, items=items[:10], scorers=["snne"])
    evaluation = result.summary.scorers["snne"].evaluation
    assert evaluation is not None
    assert (evaluation.n, evaluation.n_hallucinated) == (10, 5)
    assert evaluation == without.summary.scorers["snne"].evaluation
    everything = result.summary.scorers["predictive_entropy"].evaluation
    assert everything is not None
    assert everything.n == 12


EXTREMES: dict[str, Json] = {
    "tau near zero": {"items": [item("a", "b")], "tau": 1e-310},
    "tau tiny": {"items": [item("a", "b")], "tau": 1e-12},
    "tau huge": {"items": [item("a", "b")], "tau": 1e300},
    "similarity beyond one": {
        "items": [item("a", "b", similarity=[[1, 1e308], [1e308, 1]])],
        "similarity": {"kind": "precomputed"},
        "tau": 0.1,
    },
    "similarity far below": {
        "items": [item("a", "b", similarity=[[1, -1e308], [-1e308, 1]])],
        "similarity": {"kind": "precomputed"},
        "tau": 0.1,
        "include_self": False,
    },
    "similarities that overflow their mean": {
        "items": [item("a", "b", similarity=[[1, -1e308], [-1.7e308, 1]])],
        "similarity": {"kind": "precomputed", "symmetrize": "mean"},
    },
    "log-probabilities that overflow their sum": {
        "items": [{"responses": [answer("a", [-1e308, -1e308]), answer("b", [-1.0])]}],
    },
    "log-probabilities that all overflow": {
        "items": [{"responses": [answer("a", [-1e308] * 3), answer("b", [-1e308] * 3)]}],
    },
    "impossible tokens": {
        "items": [{"responses": [answer("a", [-9999.0]), answer("b", [-1e5])]}],
    },
    "a hundred equal answers": {"items": [item(*["a"] * MAX_ANSWERS)]},
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extreme_numbers_are_refused_or_scored_but_never_break_the_job(
    tmp_path: Path, name: str
) -> None:
    try:
        spec = Spec.model_validate({**EXTREMES[name], "scorers": ALL})
    except ValidationError:
        return
    entry = scored(job.run(spec, LocalContext(tmp_path, spec)))[0]
    for score in entry.scores.values():
        assert score.valid == (score.value is not None) == (score.reason is None)


def test_scores_that_differ_by_rounding_only_have_figures(tmp_path: Path) -> None:
    """All answers equal, different likelihoods: WSNNE is the same number up to its last bit."""
    items = [
        {"responses": [answer("a", [-((k * 7 + j * 13) % 29) / 10]) for j in range(10)]}
        for k in range(40)
    ]
    result = run(tmp_path, items=items, scorers=ALL)
    assert result.figures


def test_a_cosine_that_rounds_above_one_keeps_its_confidence(tmp_path: Path) -> None:
    above = 1 + 2**-52
    entry = item("a", "b", similarity=[[above, 0.5], [0.5, above]])
    result = run(tmp_path, items=[entry], similarity={"kind": "precomputed"})
    exact = run(
        tmp_path,
        items=[item("a", "b", similarity=[[1, 0.5], [0.5, 1]])],
        similarity={"kind": "precomputed"},
    )
    expected = scored(exact)[0].scores["snne"].confidence
    assert scored(result)[0].scores["snne"].confidence == pytest.approx(expected)


# -- labels ----------------------------------------------------------------------------------


def test_labels_are_given_or_graded_by_references(tmp_path: Path) -> None:
    items = [
        item("a", "b", label=1, answer=answer("Canberra"), references=["Canberra"]),
        item("a", "b", answer=answer("It is CANBERRA, of course"), references=["canberra"]),
        item("a", "b", answer=answer("Sydney"), references=["Canberra", "the ACT"]),
        item("a", "b", answer=answer("The  ACT."), references=["Canberra", "the ACT"]),
        item("a", "b", answer=answer("Sydney")),
        item("a", "b", references=["Canberra"]),
        item("a", "b", answer=answer("Sydney"), references=[]),
    ]
    result = run(tmp_path, items=items)
    labels = [entry.label for entry in scored(result)]
    assert labels == [1, 0, 1, 0, None, None, None]
    assert result.summary.labels == {"given": 1, "contains_reference": 3}
    evaluation = result.summary.scorers["snne"].evaluation
    assert evaluation is not None
    assert (evaluation.n, evaluation.n_hallucinated) == (4, 2)
    # Every item has the same score, so nothing is found and nothing is missed.
    assert evaluation.auroc.value == 0.5
    assert evaluation.prr.value == pytest.approx(0)


@pytest.mark.parametrize(
    ("said", "reference", "label"),
    [
        ("in 2014", "14", 1),
        ("It is Lomé.", "Lome", 0),
        ("el ano pasado", "año", 1),
        ("東京です", "東京", 0),
    ],
)
def test_references_are_whole_words(tmp_path: Path, said: str, reference: str, label: int) -> None:
    result = run(tmp_path, items=[item("a", "b", answer=answer(said), references=[reference])])
    assert scored(result)[0].label == label


def test_blank_references_grade_nothing(tmp_path: Path) -> None:
    result = run(tmp_path, items=[item("a", "b", answer=answer("Sydney"), references=["", " "])])
    assert scored(result)[0].label is None


def test_labels_of_one_class_leave_metrics_undefined(tmp_path: Path) -> None:
    result = run(tmp_path, items=[item("a", "b", label=1), item("a", "a", label=1)])
    evaluation = result.summary.scorers["snne"].evaluation
    assert evaluation is not None
    assert evaluation.auroc.model_dump() == {"value": None, "low": None, "high": None}
    assert evaluation.prr.value is None
    assert evaluation.n_hallucinated == 2


# -- figures ---------------------------------------------------------------------------------


def encodings(specification: Json) -> list[Json]:
    inner = specification.get("spec", specification)
    # A layer with data of its own is a mark of reference, such as a diagonal.
    found = [
        layer["encoding"]
        for layer in inner.get("layer", [inner])
        if "data" not in layer or layer is inner
    ]
    if "facet" in specification:
        found.append({"facet": specification["facet"]})
    return found


@pytest.mark.parametrize("labelled", [True, False])
def test_figures_are_vega_lite_with_data(tmp_path: Path, labelled: bool) -> None:
    items = labelled_items()
    if not labelled:
        for entry in items:
            del entry["label"]
    result = run(tmp_path, items=items, scorers=ALL)
    assert len(result.figures) == (4 if labelled else 2)
    assert len({figure.title for figure in result.figures}) == len(result.figures)
    for figure in result.figures:
        specification = json.loads(json.dumps(figure.vega_lite, allow_nan=False))
        assert specification["$schema"].startswith("https://vega.github.io/schema/vega-lite/v")
        values = specification["data"]["values"]
        assert values
        inner = specification.get("spec", specification)
        for layer in inner.get("layer", [inner]):
            assert layer["mark"]["type"] in {"bar", "line", "point", "area"}
        for encoding in encodings(specification):
            for channel, definition in encoding.items():
                assert all(definition["field"] in row for row in values), channel
                # A secondary position takes its type from the first.
                if channel != "x2":
                    assert definition["type"] in {"quantitative", "nominal", "ordinal"}


def test_figures_count_every_item_once(tmp_path: Path) -> None:
    items = [*labelled_items(12), item("a", "b"), item("alone")]
    result = run(tmp_path, items=items, scorers=["snne", "num_semantic_sets"])
    histograms, clusters = result.figures[:2]
    counted: dict[tuple[str, str], int] = {}
    for row in histograms.vega_lite["data"]["values"]:
        key = (row["scorer"], row["label"])
        counted[key] = counted.get(key, 0) + row["items"]
        assert row["low"] <= row["high"]
    for name in ("snne", "num_semantic_sets"):
        by_label = [counted[name, label] for label in ("right", "hallucinated", "unlabelled")]
        assert by_label == [6, 6, 1]
    assert sum(row["items"] for row in clusters.vega_lite["data"]["values"]) == 14


def test_a_run_without_any_defined_score_still_has_a_result(tmp_path: Path) -> None:
    result = run(tmp_path, items=[item("alone", label=1), item("alone", label=0)])
    assert result.summary.scorers["snne"].evaluation is None
    json.dumps([figure.vega_lite for figure in result.figures], allow_nan=False)


# -- bad input -------------------------------------------------------------------------------

GOOD = item("a", "b")
TWO = [answer("a"), answer("b")]

BAD_LINES: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", ""),
    "a list": ("[]", ""),
    "not UTF-8": (b'{"responses": [{"text": "caf\xe9"}]}', ""),
    "half a surrogate pair": ('{"responses": [{"text": "\\ud800"}]}', ""),
    "no answers": ({"responses": []}, "/responses"),
    "no responses": ({"prompt": "?"}, "/responses"),
    "too many answers": (item(*["a"] * (MAX_ANSWERS + 1)), "/responses"),
    "unknown field": ({"responses": TWO, "answers": []}, "/answers"),
    "unknown field of an answer": ({"responses": [{"text": "a", "x": 1}]}, "/responses/0/x"),
    "text is a number": ({"responses": [{"text": 3}]}, "/responses/0/text"),
    "text is too long": (item("a", "b" * (MAX_CHARACTERS + 1)), "/responses/1/text"),
    "positive log-probability": (
        {"responses": [answer("a"), answer("b", [-1.0, 0.5])]},
        "/responses/1/token_logprobs/1",
    ),
    "no log-probability": (
        {"responses": [{"text": "a", "token_logprobs": ["low"]}]},
        "/responses/0/token_logprobs/0",
    ),
    "label out of range": ({"responses": TWO, "label": 2}, "/label"),
    "matrix of another size": ({"responses": TWO, "similarity": [[1.0]]}, ""),
    "ragged matrix": ({"responses": TWO, "similarity": [[1.0, 0.0], [0.0]]}, ""),
    "NaN in the matrix": (
        '{"responses": [{"text": "a"}], "similarity": [[NaN]]}',
        "/similarity/0/0",
    ),
    "similarity above one": (
        {"responses": TWO, "similarity": [[1.0, 1.5], [0.0, 1.0]]},
        "/similarity",
    ),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_reported_with_its_number_and_field(tmp_path: Path, name: str) -> None:
    line, pointer = BAD_LINES[name]
    with pytest.raises(JobError) as caught:
        run(tmp_path, input=write_lines(tmp_path, [GOOD, "", line, GOOD]))
    error = caught.value
    assert error.code == "input_invalid"
    assert not error.retryable
    assert error.details["bad_lines"] == 1
    assert error.details["lines"] == 3
    assert {row["line"] for row in rows(error)} == {3}
    assert any(row["pointer"].startswith(pointer) for row in rows(error)), rows(error)
    assert all(row["message"] for row in rows(error))
    assert "line 3" in error.message


def test_all_bad_lines_are_reported_before_anything_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(job, "score", lambda *args: calls.append(args))
    lines: list[Json | str | bytes] = []
    for k in range(600):
        lines.append({"responses": TWO, "label": 5} if k % 4 == 3 else GOOD)
    with pytest.raises(JobError, match="150 of 600 lines") as caught:
        run(tmp_path, input=write_lines(tmp_path, lines))
    assert calls == []
    assert caught.value.details["bad_lines"] == 150
    assert [row["line"] for row in rows(caught.value)] == [4 * k for k in range(1, 101)]
    assert not (tmp_path / "artifacts").exists()
    json.dumps(caught.value.details)


def test_a_line_with_many_faults_does_not_hide_other_lines(tmp_path: Path) -> None:
    worst: Json = {"responses": [{"text": k} for k in range(50)]}
    with pytest.raises(JobError) as caught:
        run(tmp_path, input=write_lines(tmp_path, [worst, GOOD, "{"]))
    assert {row["line"] for row in rows(caught.value)} == {1, 3}


def test_a_line_without_a_matrix_is_bad_when_similarity_is_precomputed(tmp_path: Path) -> None:
    name = write_lines(tmp_path, [item("a", similarity=[[1.0]]), GOOD])
    with pytest.raises(JobError) as caught:
        run(tmp_path, input=name, similarity={"kind": "precomputed"})
    assert [(row["line"], row["pointer"]) for row in rows(caught.value)] == [(2, "/similarity")]


def test_a_line_that_is_too_long_ends_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_files, "MAX_LINE_BYTES", 1000)
    with pytest.raises(JobError, match="Line 2 ") as caught:
        run(tmp_path, input=write_lines(tmp_path, [GOOD, item("a" * 1001, "b")]))
    assert caught.value.code == "too_large"


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_items_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "items.jsonl").write_bytes(content)
    with pytest.raises(JobError, match="no items") as caught:
        run(tmp_path, input="items.jsonl")
    assert caught.value.code == "input_invalid"


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"missing\.jsonl") as caught:
        run(tmp_path, input="missing.jsonl")
    assert caught.value.code == "input_unreadable"


BAD_SPECS: dict[str, tuple[Json, str]] = {
    "neither items nor input": ({}, "exactly one of items and input"),
    "both": ({"items": [GOOD], "input": "a.jsonl"}, "exactly one of items and input"),
    "no item": ({"items": []}, "items"),
    "too many items": ({"items": [GOOD] * 1001}, "at most 1000"),
    "unknown field": ({"items": [GOOD], "scorer": "snne"}, "scorer"),
    "unknown option": ({"items": [GOOD], "similarity": {"kid": "exact"}}, "/similarity/kid: "),
    "unknown scorer": ({"items": [GOOD], "scorers": ["snne", "guess"]}, "/scorers/1: "),
    "scorer twice": ({"items": [GOOD], "scorers": ["snne", "snne"]}, "twice"),
    "no scorer": ({"items": [GOOD], "scorers": []}, "scorers"),
    "unknown tokenizer": ({"items": [GOOD], "similarity": {"tokenizer": "x"}}, "tokenizer"),
    "tau is zero": ({"items": [GOOD], "tau": 0}, "tau"),
    "negative seed": ({"items": [GOOD], "seed": -1}, "seed"),
    "threshold above one": ({"items": [GOOD], "clustering": {"threshold": 1.1}}, "threshold"),
    "bad item": (
        {"items": [GOOD, {"responses": [answer("a", [-1.0, 0.5])]}]},
        "/items/1/responses/0/token_logprobs/1: ",
    ),
    "wrong matrix": (
        {"items": [GOOD, item("a", "b", similarity=[[1.0]])]},
        "/items/1: ",
    ),
    "no matrix": (
        {"items": [item("a", similarity=[[1.0]]), GOOD], "similarity": {"kind": "precomputed"}},
        "items/1: similarity",
    ),
}


@pytest.mark.parametrize("name", BAD_SPECS)
def test_a_bad_spec_is_refused_by_the_name_of_its_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    spec, message = BAD_SPECS[name]
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    assert main(["score-hallucination", str(tmp_path / "spec.json")]) == 1
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""


def test_the_command_line_prints_the_result(tmp_path: Path) -> None:
    write_lines(tmp_path, list(labelled_items(6)))
    (tmp_path / "spec.json").write_text(json.dumps({"input": "items.jsonl", "scorers": ALL}))
    command = [sys.executable, "-m", "methods", "score-hallucination", str(tmp_path / "spec.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = Result.model_validate_json(done.stdout)
    assert printed.model_dump() == run(tmp_path, input="items.jsonl", scorers=ALL).model_dump()


def test_the_command_line_names_bad_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lines(tmp_path, [GOOD, {"responses": TWO, "label": 7}])
    (tmp_path / "spec.json").write_text(json.dumps({"input": "items.jsonl"}))
    assert main(["score-hallucination", str(tmp_path / "spec.json")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("input_invalid: 1 of 2 lines")
    details = json.loads(error[error.index("{") :])
    assert (details["rows"][0]["line"], details["rows"][0]["pointer"]) == (2, "/label")


# -- texts of the world ----------------------------------------------------------------------


def rouge_l_of(left: str, right: str) -> float:
    distinct, positions = rouge_l.unique_answers([[left, right]])
    return float(rouge_l.rouge_l(distinct, positions, "unicode")[0][0, 1])


@pytest.mark.parametrize(
    "text", ["巴黎是法国的首都", "Париж", "باريس عاصمة فرنسا", "🗼🇫🇷", "...", "กรุงเทพ", "नई दिल्ली"]
)
def test_equal_answers_are_alike_in_every_script(tmp_path: Path, text: str) -> None:
    result = run(tmp_path, items=[item(text, text, text)], scorers=["snne", "lexical_similarity"])
    entry = scored(result)[0]
    assert entry.n_unique == 1
    assert rouge_l_of(text, text) == 1
    for score in entry.scores.values():
        assert score.confidence == pytest.approx(1)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1,000", "1000"),
        ("1,234,567 people", "1234567 people"),
        ("PARIS", "paris"),
        ("Straße", "STRASSE"),
        ("１２３", "123"),
        ("ﬁne", "fine"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u22125", "-5"),
        ("a\u00a0b", "a  b"),
        ("Paris.", "Paris"),
        ("(Paris)", "Paris!"),
        ("50 %", "50%"),
    ],
)
def test_the_same_in_other_clothes(left: str, right: str) -> None:
    assert rouge_l_of(left, right) == 1


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("x = a + b", "x = a - b"),
        ("-5", "5"),
        ("it is -5 degrees", "it is 5 degrees"),
        ("3.14", "3.141"),
        ("3.14", "314"),
        ("1,000", "1.000"),
        ("12:30", "1230"),
        ("café", "cafe"),
        ("The drug is safe", "The drug is not safe"),
        ("$\\frac{1}{2}$", "$\\frac{1}{3}$"),
        ("2 < 3", "2 > 3"),
        ("a * b", "a / b"),
        ("😀", "😁"),
        ("Париж", "Лондон"),
        ("€5", "$5"),
        ("x != y", "x = y"),
        ("x!=y", "x=y"),
        ("50%", "50"),
        ("50‰", "50%"),
        (".5", "5"),
    ],
)
def test_what_means_something_else_is_not_the_same(left: str, right: str) -> None:
    assert rouge_l_of(left, right) < 1


def test_scripts_without_spaces_overlap_by_letters() -> None:
    assert 0 < rouge_l_of("巴黎是法国的首都", "法国的首都是巴黎") < 1
    assert 0 < rouge_l_of("กรุงเทพ", "กรุงโรม") < 1
    assert rouge_l_of("ベルリン", "東京") == 0


# -- real answers ----------------------------------------------------------------------------

#: AUROC of a plain script over the same file (shared/data/README.md).
KNOWN = {
    "capital": {
        "snne": 0.795,
        "wsnne": 0.817,
        "discrete_semantic_entropy": 0.806,
        "semantic_entropy": 0.841,
        "predictive_entropy": 0.779,
    },
    "sentence": {
        "snne": 0.691,
        "wsnne": 0.688,
        "discrete_semantic_entropy": 0.543,
        "semantic_entropy": 0.446,
        "predictive_entropy": 0.718,
    },
}


@pytest.mark.parametrize("group", KNOWN)
def test_real_answers_give_the_known_figures(tmp_path: Path, group: str) -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if f'"{group}-' in line[:40]]
    name = write_lines(tmp_path, list(lines))
    result = run(tmp_path, input=name, scorers=ALL)
    shares = {"capital": (100, 0.26), "sentence": (60, 0.60)}
    count, wrong = shares[group]
    assert result.summary.n_items == count
    assert result.summary.labels == {"given": count}
    for scorer, known in KNOWN[group].items():
        evaluation = result.summary.scorers[scorer].evaluation
        assert evaluation is not None
        assert evaluation.n_hallucinated == round(wrong * count)
        assert evaluation.auroc.value == pytest.approx(known, abs=0.02), scorer
        interval = (evaluation.auroc.low, evaluation.auroc.high)
        assert cast(float, interval[0]) < known < cast(float, interval[1])


def test_the_references_of_the_real_answers_grade_as_their_labels(tmp_path: Path) -> None:
    """But for accents: the labels take Lomé for Lome, the grading does not."""
    items = [json.loads(line) for line in EXAMPLE.read_text().splitlines()]
    labels = [entry.pop("label") for entry in items]
    result = run(tmp_path, items=items)
    graded = [entry.label for entry in scored(result)]
    other = [k for k, label in enumerate(labels) if graded[k] != label]
    assert len(other) <= 1
    assert all(not items[k]["answer"]["text"].isascii() for k in other)
    assert result.summary.labels == {"contains_reference": len(items)}


@pytest.mark.parametrize("unknown", [-9999.0, -1e3, None])
def test_unknown_logprobs_are_no_values(tmp_path: Path, unknown: float | None) -> None:
    judged = {"text": "Canberra is it", "token_logprobs": [-0.1, unknown, -0.1]}
    asked = {"items": [item("a", "b", answer=judged)], "scorers": ["perplexity"]}
    spec = Spec.model_validate(asked)
    found = job.run(spec, LocalContext(tmp_path, spec)).items
    assert found is not None
    score = found[0].scores["perplexity"]
    assert not score.valid
    assert score.reason == "answer has unknown token_logprobs"


def test_a_matrix_of_distances_is_refused_and_rounding_is_not(tmp_path: Path) -> None:
    def asked(matrix: list[list[float]], *texts: str) -> Json:
        return {
            "items": [{"responses": [answer(text) for text in texts], "similarity": matrix}],
            "similarity": {"kind": "precomputed"},
            "scorers": ["snne"],
        }

    with pytest.raises(ValidationError, match="it is a matrix of distances"):
        Spec.model_validate(asked([[0, 1], [1, 0]], "a", "b"))
    spec = Spec.model_validate(asked([[0.9999999, 0.5], [0.5, 1.0]], "a", "b"))
    found = job.run(spec, LocalContext(tmp_path, spec)).items
    assert found is not None
    assert found[0].scores["snne"].confidence is not None


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "-1e300"])
def test_what_is_no_logarithm_of_a_probability_is_unknown(tmp_path: Path, value: str) -> None:
    line = '{"responses": [{"text": "a", "token_logprobs": [-1, VALUE]}, {"text": "b"}]}'
    line = line.replace("VALUE", value)
    (tmp_path / "items.jsonl").write_text(line)
    result = run(tmp_path, input="items.jsonl", scorers=["wsnne"])
    assert result.items is not None
    assert result.items[0].scores["wsnne"].reason == "responses/0 has unknown token_logprobs"
