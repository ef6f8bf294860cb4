"""Adding a method means adding one folder; what the registry refuses; the local context."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

import methods
from methods.context import RunContext
from methods.errors import ERROR_CODES, JobError
from methods.jobtype import InputRef, JobType, SpecModel, input_refs
from methods.local import LocalContext
from methods.registry import load_registry

ROOT = Path(__file__).parents[2]

TOY_SPEC = '''
from methods.jobtype import InputRef, JobType, SpecModel


class Spec(SpecModel):
    """Count."""

    words: list[str] = []
    input: InputRef | None = None
    seed: int = 0


class Result(SpecModel):
    """The count."""

    total: int
    drawn: int


JOB = JobType(
    name=NAME,
    version="1",
    title="Toy",
    summary="Counts letters.",
    spec=Spec,
    result=Result,
    runner="methods.FOLDER.job:run",
)
'''

TOY_JOB = """
from methods.FOLDER.core import letters
from methods.FOLDER.spec import Result


def run(spec, ctx):
    words = list(spec.words)
    if spec.input is not None:
        with ctx.open_input(spec.input) as reader:
            words += reader.read().decode().split()
    ctx.progress("counting", len(words), len(words), "words")
    ctx.save_artifact("words.txt", " ".join(words).encode(), "text/plain")
    return Result(total=letters(words), drawn=int(ctx.rng.integers(1000)))
"""

TOY_CORE = """
def letters(words):
    return sum(len(word) for word in words)
"""


def add_method(root: Path, folder: str, name: str, job: bool = True) -> None:
    """One folder, as a person who adds a method would write it."""
    path = root / folder
    path.mkdir(parents=True)
    spec = TOY_SPEC.replace("NAME", repr(name)).replace("FOLDER", folder)
    (path / "spec.py").write_text(spec if job else "JOB = None\n")
    (path / "job.py").write_text(TOY_JOB.replace("FOLDER", folder))
    (path / "core.py").write_text(TOY_CORE)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for more methods, beside the bundled ones only; the package is as before after."""
    paths, modules = list(methods.__path__), set(sys.modules)
    # Tests of the service add their own toys to the package.
    methods.__path__[:] = [str(ROOT / "methods")]
    yield tmp_path / "more"
    methods.__path__[:] = paths
    for name in set(sys.modules) - modules:
        if name.startswith("methods."):
            del sys.modules[name]
            vars(methods).pop(name.split(".")[1], None)


# -- the toy method --------------------------------------------------------------------------


def test_the_bundled_methods_are_found_by_name() -> None:
    registry = load_registry()
    assert "score-hallucination" in registry
    for name, job in registry.items():
        assert job.name == name
        assert callable(job.load_runner())
        if job.example:
            job.spec.model_validate(job.example)


def test_the_registry_is_frozen() -> None:
    with pytest.raises(TypeError):
        load_registry()["more"] = load_registry()["score-hallucination"]  # type: ignore[index]


def test_a_method_in_another_folder_is_found_and_runs(folder: Path, tmp_path: Path) -> None:
    add_method(folder, "toy_counting", "toy")
    registry = load_registry([folder])
    assert {"toy", "score-hallucination"} <= set(registry)
    job = registry["toy"]
    spec = job.spec.model_validate({"words": ["ab", "cde"], "seed": 4})
    result = job.load_runner()(spec, LocalContext(tmp_path / "run", spec))
    assert isinstance(result, job.result)
    assert result.model_dump() == {
        "total": 5,
        "drawn": int(np.random.default_rng(4).integers(1000)),
    }


def test_loading_twice_finds_the_same(folder: Path) -> None:
    add_method(folder, "toy_counting", "toy")
    first, second = load_registry([folder]), load_registry([folder])
    assert first == second
    assert methods.__path__.count(str(folder)) == 1


def test_a_toy_method_runs_from_the_command_line(tmp_path: Path) -> None:
    add_method(tmp_path / "more", "toy_counting", "toy")
    (tmp_path / "words.txt").write_text("four more words here")
    (tmp_path / "spec.json").write_text(json.dumps({"words": ["one"], "input": "words.txt"}))
    command = [sys.executable, "-m", "methods", "toy", str(tmp_path / "spec.json")]
    command += ["--methods", str(tmp_path / "more"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["total"] == 20
    saved = tmp_path / "out" / "artifacts" / "words.txt"
    assert saved.read_text() == "one four more words here"
    assert "counting: 5/5 words" in done.stderr


def test_an_unknown_type_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "methods", "toy", str(tmp_path / "spec.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'toy'" in done.stderr
    assert "score-hallucination" in done.stderr


# -- what is refused -------------------------------------------------------------------------


def test_a_name_declared_twice_is_refused(folder: Path) -> None:
    add_method(folder, "toy_a", "toy")
    add_method(folder, "toy_b", "toy")
    with pytest.raises(ValueError, match=r"toy_b.*'toy' is declared twice"):
        load_registry([folder])
    assert str(folder) not in methods.__path__, "a refused folder is not searched again"


def test_a_missing_folder_is_refused(folder: Path) -> None:
    folder.mkdir()
    with pytest.raises(ValueError, match="elsewhere: no folder of methods"):
        load_registry([folder, folder / "elsewhere"])
    assert str(folder) not in methods.__path__


def test_a_name_of_a_bundled_method_is_refused(folder: Path) -> None:
    add_method(folder, "toy_a", "score-hallucination")
    with pytest.raises(ValueError, match="'score-hallucination' is declared twice"):
        load_registry([folder])


@pytest.mark.parametrize("name", ["Toy", "toy_a", "-toy", "toy-", "toy--a", "1toy", "", "toy\n"])
def test_a_malformed_name_is_refused(folder: Path, name: str) -> None:
    add_method(folder, "toy_a", name)
    with pytest.raises(ValueError, match="lower-case-with-hyphens"):
        load_registry([folder])


def test_a_folder_without_a_declaration_is_refused(folder: Path) -> None:
    add_method(folder, "toy_a", "toy", job=False)
    with pytest.raises(ValueError, match="toy_a"):
        load_registry([folder])


def test_declarations_need_no_numerics() -> None:
    """The gateway loads them all; it has neither numpy nor torch."""
    program = (
        "import sys; from methods.registry import load_registry; assert load_registry();"
        "print({'numpy', 'scipy', 'torch', 'regex'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# -- input references ------------------------------------------------------------------------


class Part(SpecModel):
    file: InputRef | None = None
    plain: str = ""


class Whole(SpecModel):
    first: Part
    parts: list[Part]
    named: dict[str, InputRef]
    files: list[InputRef]
    numbers: list[float]


def test_input_refs_have_json_pointers_in_document_order() -> None:
    spec = Whole.model_validate(
        {
            "first": {"file": "file_a", "plain": "file_no"},
            "parts": [{}, {"file": "file_b"}],
            "named": {"a/b~c": "file_c"},
            "files": ["file_d", "file_e"],
            "numbers": [1.0, 2.0],
        }
    )
    assert input_refs(spec) == [
        ("/first/file", "file_a"),
        ("/parts/1/file", "file_b"),
        ("/named/a~1b~0c", "file_c"),
        ("/files/0", "file_d"),
        ("/files/1", "file_e"),
    ]


def test_an_input_ref_stays_one_through_json() -> None:
    spec = Part.model_validate_json('{"file": "file_a"}')
    again = Part.model_validate_json(spec.model_dump_json())
    assert input_refs(again) == [("/file", "file_a")]
    assert isinstance(again.file, InputRef)


def test_the_input_of_score_hallucination_is_found() -> None:
    job: JobType = load_registry()["score-hallucination"]
    assert input_refs(job.spec.model_validate({"input": "file_a"})) == [("/input", "file_a")]
    assert input_refs(job.spec.model_validate(job.example)) == []


# -- the local context -----------------------------------------------------------------------


def test_local_context_is_a_run_context(tmp_path: Path) -> None:
    context = LocalContext(tmp_path)
    assert isinstance(context, RunContext)
    assert isinstance(context.log, (logging.Logger, logging.LoggerAdapter))
    assert context.workdir.is_dir()
    context.progress("nobody listens", 0, 1)
    context.check()


def test_local_context_opens_inputs_relative_to_their_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_bytes(b"\xff\x00a")
    context = LocalContext(tmp_path / "out", inputs=tmp_path / "in")
    for name in ("a.txt", str(tmp_path / "in" / "a.txt")):
        with context.open_input(InputRef(name)) as reader:
            assert reader.read() == b"\xff\x00a"


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_local_context_names_an_input_it_cannot_open(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match=name) as caught:
        LocalContext(tmp_path).open_input(InputRef(name))
    assert caught.value.code == "input_unreadable"
    assert caught.value.origin == "user"
    assert not caught.value.retryable


def test_local_context_saves_artifacts_from_bytes_and_from_files(tmp_path: Path) -> None:
    context = LocalContext(tmp_path)
    source = context.workdir / "source"
    source.write_bytes(b"some bytes")
    for given in (b"some bytes", source):
        artifact = context.save_artifact("sub/a.bin", given, "application/octet-stream")
        assert (tmp_path / artifact.id).read_bytes() == b"some bytes"
        assert artifact.size == 10
        assert artifact.sha256 == sha256(b"some bytes").hexdigest()
        assert (artifact.name, artifact.media_type) == ("sub/a.bin", "application/octet-stream")


def test_local_context_restores_checkpoints_in_a_later_attempt(tmp_path: Path) -> None:
    first = LocalContext(tmp_path)
    assert first.restore("rows/1") is None
    first.checkpoint("rows/1", {"done": [1, 2]})
    first.checkpoint("rows/2", None)
    second = LocalContext(tmp_path)
    assert second.restore("rows/1") == {"done": [1, 2]}
    assert second.restore("rows/3") is None


def test_local_context_keeps_files_for_a_later_attempt(tmp_path: Path) -> None:
    first, source = LocalContext(tmp_path), tmp_path / "source"
    assert first.kept_file("large") is None
    for content in (b"one", b"two"):
        source.write_bytes(content)
        first.keep_file("large", source)
    kept = LocalContext(tmp_path).kept_file("large")
    assert kept is not None
    assert kept.read_bytes() == b"two"


def test_local_context_runs_children_once_for_the_same_content(
    folder: Path, tmp_path: Path
) -> None:
    add_method(folder, "toy_counting", "toy")
    job = load_registry([folder])["toy"]
    for name in ("a.txt", "copy.txt"):
        (tmp_path / name).write_text("four more")
    specs = [
        job.spec.model_validate(data)
        for data in ({"words": ["abc"]}, {"input": "a.txt"}, {"input": "copy.txt"})
    ]
    first = list(LocalContext(tmp_path).fan_out("toy", specs))
    assert [child.place for child in first] == [0, 1, 2]
    assert [child.result["total"] for child in first] == [3, 8, 8]
    assert [child.reused for child in first] == [False, False, True], "inputs count by their bytes"
    with first[2].open("words.txt") as reader:
        assert reader.read() == b"four more"
    (tmp_path / "a.txt").write_text("else")
    second = list(LocalContext(tmp_path).fan_out("toy", [specs[1], specs[0]]))
    assert [(child.result["total"], child.reused) for child in second] == [(4, False), (3, True)]


def test_local_context_draws_by_the_seed_of_the_spec(tmp_path: Path) -> None:
    class Seeded(SpecModel):
        seed: int | None = None

    def drawn(spec: object) -> list[int]:
        values: list[int] = LocalContext(tmp_path, spec).rng.integers(10**9, size=4).tolist()
        return values

    assert drawn(Seeded(seed=7)) == drawn(Seeded(seed=7))
    assert drawn(Seeded(seed=7)) != drawn(Seeded(seed=8))
    assert drawn(Seeded()) == drawn(None) == drawn(Seeded(seed=0))
    context = LocalContext(tmp_path)
    assert context.rng is context.rng


def test_job_errors_survive_pickling() -> None:
    """A spawned process hands them to its parent."""
    import pickle

    for code, (origin, retryable) in ERROR_CODES.items():
        error = JobError(code, "It broke.", details={"line": 3})
        again = pickle.loads(pickle.dumps(error))
        assert (again.code, again.message, again.details) == (code, "It broke.", {"line": 3})
        assert (again.origin, again.retryable) == (origin, retryable)
