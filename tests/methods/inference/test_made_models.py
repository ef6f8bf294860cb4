"""Archives of models: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from methods.errors import JobError
from methods.inference.made_models import Manifest, ModelBase, pack, unpack
from methods.inference.model_registry import JobModels, ModelDeclaration, Models, fingerprint
from methods.local import LocalContext

FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights",
    "tokenizer/vocab.txt": b"a\nb\n",
    "chat_template.jinja": b"{{ x }}",
}


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_a_model_comes_back_as_it_was_and_equal_models_are_equal_bytes(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", FILES | {"README.md": b"left out"})
    manifest = pack(source, tmp_path / "one.tar")
    assert manifest.kind == "full"
    pack(folder(tmp_path / "b", FILES), tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with (tmp_path / "one.tar").open("rb") as reader:
        assert unpack(reader, tmp_path / "out", "m") == manifest
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model.bin": b"pickle"}, "files ending in"),
        ({"pytorch_model.bin": b"p", **FILES}, "files ending in"),
        ({"modeling_x.py": b"import os", **FILES}, "files ending in"),
        ({"config.json": b"{}"}, "no safetensors"),
        ({"adapter_config.json": b"{}", **FILES}, "an adapter or projector has a base"),
        ({"projector_config.json": b"{}", **FILES}, "an adapter or projector has a base"),
    ],
)
def test_what_no_model_may_have_is_refused(
    tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        pack(folder(tmp_path / "a", files), tmp_path / "m.tar")


def archive(members: list[tuple[str, bytes, Any]]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as writer:
        for name, data, kind in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(data), kind
            member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            writer.addfile(member, io.BytesIO(data))
    buffer.seek(0)
    return buffer


def manifest(**files: bytes) -> bytes:
    import hashlib

    named = {
        name.replace("__", "/"): {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }
    return json.dumps({"format": "datassay-model/1", "kind": "full", "files": named}).encode()


GOOD = manifest(**{"a.json": b"{}", "w.safetensors": b""})
REG = tarfile.REGTYPE
WHOLE = [("a.json", b"{}", REG), ("w.safetensors", b"", REG)]


@pytest.mark.parametrize(
    "members",
    [
        [],
        [("a.json", b"{}", REG)],
        [("manifest.json", b"no JSON", REG)],
        [("manifest.json", GOOD, REG)],
        [("manifest.json", GOOD, REG), ("a.json", b"{ }", REG)],
        [("manifest.json", GOOD, REG), ("a.json", b"[]", REG)],
        [("manifest.json", GOOD, REG), ("b.json", b"{}", REG)],
        [("manifest.json", GOOD, REG), ("a.json", b"", tarfile.SYMTYPE)],
        [("manifest.json", GOOD, REG), ("a.json", b"", tarfile.LNKTYPE)],
        [
            ("manifest.json", GOOD, REG),
            ("a.json", b"{}", REG),
            ("w.safetensors", b"", REG),
            ("a.json", b"{}", REG),
        ],
        [("manifest.json", manifest(**{"..__x.json": b"{}"}), REG), ("../x.json", b"{}", REG)],
        [("manifest.json", manifest(**{"__x.json": b"{}"}), REG), ("/x.json", b"{}", REG)],
        [("manifest.json", manifest(**{"x.py": b""}), REG), ("x.py", b"", REG)],
        [("manifest.json", manifest(**{"adapter_config.json": b"{}"}), REG)],
        [("manifest.json", b" " * (1 << 20) + GOOD, REG), ("a.json", b"{}", REG)],
    ],
)
def test_archives_that_were_tampered_with_are_refused(
    tmp_path: Path, members: list[tuple[str, bytes, Any]]
) -> None:
    with pytest.raises(JobError, match="m is not a model that a job made") as caught:
        unpack(archive(members), tmp_path / "out", "m")
    assert caught.value.code == "input_invalid"
    assert not (tmp_path / "x.json").exists()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000))
def test_any_bytes_are_a_model_or_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(JobError):
        unpack(io.BytesIO(data), tmp_path / "out", "m")


def test_an_adapter_goes_with_its_base_and_no_other(tmp_path: Path) -> None:
    declared = {"base": ModelDeclaration(path="/weights/base", revision="r1")}
    source = folder(
        tmp_path / "a",
        {
            "adapter_config.json": b'{"base_model_name_or_path": "/home/of/the/trainer"}',
            "adapter_model.safetensors": b"w",
        },
    )
    context = LocalContext(tmp_path / "job", models=Models(declared))
    saved = context.save_model("adapter", source, base="base")
    with (tmp_path / "job" / saved.id).open("rb") as reader:
        made = unpack(reader, tmp_path / "out", "m")
    assert made.base == ModelBase(name="base", fingerprint=fingerprint(declared["base"]))
    assert "/weights/base" not in made.model_dump_json(), "where models lie is the operator's"

    def models(**others: Any) -> JobModels:
        shared = Models({"base": ModelDeclaration(**others)})
        return JobModels(shared, lambda name: (tmp_path / "job" / name).open("rb"), tmp_path / "m")

    found = models(path="/weights/base", revision="r1", dtype="bfloat16").find(saved.id)
    config = json.loads((Path(found.path or "") / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "/weights/base"
    assert found.dtype == "bfloat16"
    with pytest.raises(JobError, match="other weights by now"):
        models(path="/weights/other").find(saved.id)
    with pytest.raises(JobError, match="no model 'base'"):
        JobModels(
            Models({}), lambda name: (tmp_path / "job" / name).open("rb"), tmp_path / "n"
        ).find(saved.id)


def test_declared_names_come_first(tmp_path: Path) -> None:
    models = Models({"art_director": ModelDeclaration(path="/weights")})
    assert not models.is_made("art_director")
    assert models.is_made("art_0")
    assert models.is_made("artifacts/model.tar")
    assert not models.is_made("tiny")
    job = JobModels(models, lambda name: io.BytesIO(), tmp_path)
    assert job.find("art_director").path == "/weights"


def test_the_manifest_says_its_format() -> None:
    files = {"model.safetensors": {"size": 0, "sha256": "0" * 64}}
    manifest = Manifest.model_validate({"kind": "full", "files": files})
    assert manifest.format == "datassay-model/1"
    with pytest.raises(ValueError, match="kind adapter, and is none"):
        Manifest.model_validate({"kind": "adapter", "files": files})


def test_an_adapter_answers_beside_its_untouched_base(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from methods.inference.completion import Sampling, Usage
    from methods.inference.llm import language_model
    from tests.toys.tiny_models import by_transformers, tiny_adapter, tiny_llama

    base = tiny_llama(tmp_path / "base")
    adapter = tiny_adapter(base, tmp_path / "adapter")
    models = Models({"base": ModelDeclaration(path=str(base))})
    context = LocalContext(tmp_path / "job", models=models)
    made = context.save_model("adapter", adapter, base="base").id
    prompt = "one two three"

    def answer(name: str) -> str:
        drawn = language_model(context.models, name).sample(
            [(0, prompt)], Sampling(n=1, temperature=0, max_tokens=10), Usage(), lambda: None
        )
        [(_, [completion])] = drawn
        return completion.text

    plain = by_transformers(base, None, prompt, 10)
    tuned = by_transformers(base, adapter, prompt, 10)
    assert plain != tuned
    assert answer(made) == tuned
    assert answer("base") == plain
