"""Models by name: who may be named, what is loaded, what stays in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from methods.errors import JobError
from methods.inference.model_registry import ModelDeclaration, Models, declarations

SERVER = {"base_url": "http://localhost:8000/v1", "api_key_env": "A_KEY_OF_THE_TESTS"}


@pytest.mark.parametrize(
    "wrong", [{}, {"path": "a", "base_url": "http://b"}, {"base_url": "file:///a"}, {"url": "a"}]
)
def test_a_declaration_names_one_place(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tiny"):
        declarations({"tiny": wrong})


def test_the_key_of_a_server_is_read_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    server = declarations({"server": SERVER})["server"]
    monkeypatch.delenv("A_KEY_OF_THE_TESTS", raising=False)
    assert server.api_key is None
    monkeypatch.setenv("A_KEY_OF_THE_TESTS", "sk")
    assert server.api_key == "sk"
    assert "sk" not in server.model_dump_json()


def test_only_declared_models_are_known_to_a_service(tmp_path: Path) -> None:
    models = Models(declarations({"tiny": {"path": str(tmp_path)}, "server": SERVER}))
    assert models.find("tiny").path == str(tmp_path)
    with pytest.raises(JobError, match="known: server, tiny") as caught:
        models.find(str(tmp_path))
    assert caught.value.code == "model_unknown"
    with pytest.raises(JobError, match="is a server"):
        models.weights("server")
    assert Models(any_path=True).find("org/name").path == "org/name"


def test_the_model_used_longest_ago_leaves_first() -> None:
    loads: list[str] = []

    def load(source: ModelDeclaration) -> str:
        assert source.path is not None
        loads.append(source.path)
        return source.path

    models = Models(any_path=True, keep=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert models.load(name, load) == name
    assert loads == ["a", "b", "c", "b"]


def test_a_model_that_cannot_be_loaded_is_named() -> None:
    def load(source: ModelDeclaration) -> None:
        raise OSError("no such folder")

    with pytest.raises(JobError, match="'a' cannot be loaded: no such folder") as caught:
        Models(any_path=True).load("a", load)
    assert caught.value.code == "model_unavailable"
