"""No file that a stranger sends, and no model that an operator names, brings code that we run.

The sources are read, so that a line that would is found before anybody calls it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = (
    "app",
    "infra",
    "methods",
    "models",
    "outbound",
    "server",
    "workers",
    "client/datassay",
)
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

#: Modules whose readers run what they read.
FORBIDDEN = {"cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def problems(source: str) -> list[str]:
    """What is wrong with a module."""
    tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.module == "pickle":
                found.append("imports from pickle")
        found += [f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN]
        # As an argument or as the key of a dictionary of arguments.
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            found += [] if _is(node.value, False) else ["trust_remote_code is not False"]
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is not None and _is(key, "trust_remote_code") and not _is(value, False):
                    found.append("trust_remote_code is not False")
    loads_models = False
    for name, call in calls(tree):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        last = name.rpartition(".")[2]
        loads_models |= last in {"from_pretrained", "SentenceTransformer", "CrossEncoder"}
        if name.startswith("pickle.") or last in {"read_pickle", "Unpickler"}:
            found.append(f"calls {name}")
        if name == "torch.load" and not _is(given.get("weights_only"), True):
            found.append("torch.load without weights_only=True")
        if name in {"np.load", "numpy.load"} and not _is(given.get("allow_pickle"), False):
            found.append("np.load without allow_pickle=False")
        if name in {"eval", "exec", "yaml.load"}:
            found.append(f"calls {name}")
    if loads_models and "trust_remote_code" not in source:
        found.append("loads a model and does not say trust_remote_code=False")
    return found


def _is(node: ast.AST | None, value: object) -> bool:
    return (isinstance(node, ast.Constant) and node.value is value) or (
        isinstance(node, ast.Constant) and isinstance(value, str) and node.value == value
    )


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources(path: Path) -> None:
    assert problems(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import joblib",
        "from pickle import loads",
        "import pickle; pickle.loads(b'')",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=flag)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "pd.read_pickle(f)",
        "AutoModel.from_pretrained(p)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "options = {'trust_remote_code': flag}",
        "eval(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert problems(line)


def test_the_search_sees_the_places_that_load_something() -> None:
    text = "".join(path.read_text() for path in SOURCES)
    assert len(SOURCES) > 200
    for used in ("torch.load(", "np.load(", "from_pretrained(", "trust_remote_code"):
        assert used in text
