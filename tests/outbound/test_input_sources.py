"""Which tenant may read which URI."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.outbound_settings import Credential, Source
from infra.settings import Settings
from outbound.guard import Refused
from outbound.input_sources import Sources, split_digest

SOURCES = Sources(
    [
        Source(prefix="https://data.example/open/"),
        Source(prefix="https://data.example/acme", tenants=["acme"], credential="c"),
        Source(prefix="s3://sets/acme/", tenants=["acme"]),
        Source(prefix="hf://datasets/org/"),
    ],
    {"c": Credential(headers={"X-Key": "v"})},
)


@pytest.mark.parametrize(
    ("tenant", "uri"),
    [
        ("acme", "https://data.example/open/a.jsonl"),
        ("other", "https://DATA.example:443/open/a.jsonl?v=1"),
        ("acme", "https://data.example/acme"),
        ("acme", "https://data.example/acme/x%20y.npz"),
        ("acme", "s3://sets/acme/2026/a b.npz"),
        ("other", "hf://datasets/org/name@main/train.parquet"),
        ("acme", "https://data.example/open/a#sha256=" + "0" * 64),
    ],
)
def test_allowed(tenant: str, uri: str) -> None:
    SOURCES.check(tenant, uri)


@pytest.mark.parametrize(
    ("uri", "rule"),
    [
        ("https://data.example/acme/x", "source"),
        ("https://data.example/acmes", "source"),
        ("https://data.example/", "source"),
        ("https://data.example:8443/open/x", "source"),
        ("https://data.example.evil.org/open/x", "source"),
        ("https://data.example@evil.org/open/x", "credentials"),
        ("https://u:p@data.example/open/x", "credentials"),
        ("http://data.example/open/x", "source"),
        ("https://data.example/open/../acme/x", "url"),
        ("https://data.example/open/%2e%2E/acme/x", "url"),
        ("https://data.example/open/..%2facme/x", "url"),
        ("https://data.example/open/./x", "url"),
        ("s3://sets/acme/x", "source"),
        ("s3://sets/other/x", "source"),
        ("s3://sets/acme/../other/x", "url"),
        ("s3://key:secret@sets/acme/x", "credentials"),
        ("s3:///sets/acme/x", "credentials"),
        ("hf://datasets/organisation/x", "source"),
        ("hf://datasets/org/a\nb", "url"),
        ("hf://datasets/org/a\ud800", "url"),
        ("gs://sets/x", "scheme"),
        ("file:///etc/passwd", "source"),
        ("memory://x", "scheme"),
        ("simplecache::s3://sets/acme/x", "scheme"),
        ("https://data.example/open/x#sha256=00", "digest"),
        ("https://data.example/open/x#page", "digest"),
        ("https://data.example/open/x#sha256=" + "A" * 64, "digest"),
    ],
)
def test_refused_by_a_named_rule(uri: str, rule: str) -> None:
    with pytest.raises(Refused) as caught:
        SOURCES.check("other", uri)
    assert caught.value.rule == rule


def test_the_longest_prefix_gives_the_credential() -> None:
    sources = Sources(
        [Source(prefix="https://"), Source(prefix="https://a.org/x", credential="c")],
        {"c": Credential(headers={"X-Key": "v"})},
    )
    assert sources.check("t", "https://a.org/x/y").header_values() == {"X-Key": "v"}
    assert sources.check("t", "https://a.org/xy").header_values() == {}
    assert sources.check("t", "https://b.org/x/y").header_values() == {}


@given(st.text(max_size=40))
def test_no_text_crashes_and_none_leaves_its_prefix(text: str) -> None:
    for start in ("", "s3://", "s3://sets/acme/", "https://data.example/acme/"):
        try:
            SOURCES.check("acme", start + text)
        except Refused:
            continue
        assert start.count("/") > 2 or text.lower().startswith(("s3", "http", "hf"))
        assert "/../" not in f"/{split_digest(text)[0]}/"


def test_secrets_of_settings_are_not_shown() -> None:
    credential = Credential(headers={"A": "hush"}, options={"key": "hush", "anon": True})
    assert "hush" not in repr(credential) + credential.model_dump_json()
    assert credential.option_values() == {"key": "hush", "anon": True}


def test_only_who_fetches_needs_the_credentials() -> None:
    sources = Sources([Source(prefix="https://a.org", credential="none")], {})
    sources.check("t", "https://a.org/x")
    with pytest.raises(ValueError, match="there is no credential 'none'"):
        sources.require_credentials()


@pytest.mark.parametrize(
    "wrong",
    [
        {"input_sources": [{"prefix": "file:///"}]},
        {"input_sources": [{"prefix": "a.org"}]},
        {"outbound_allow": ["http://a.org"]},
        {"input_root": "/data"},
    ],
)
def test_wrong_settings_are_told_at_the_start(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**wrong)
