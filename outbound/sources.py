"""Inputs by URI: which places a tenant's jobs may read from, and with whose credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from outbound.guard import Refused, parse_url

SCHEMES = ("https", "http", "s3", "hf", "file")
_SHA256 = re.compile(r"sha256=([0-9a-f]{64})")


class Credential(BaseModel):
    """What a worker shows to a source; it never leaves the worker."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    headers: dict[str, SecretStr] = Field(
        default_factory=dict, description="For https://, e.g. Authorization."
    )
    options: dict[str, bool | SecretStr | dict[str, Any]] = Field(
        default_factory=dict,
        description="For s3:// and hf://: arguments of the fsspec file system, e.g. key, secret, "
        "endpoint_url; token.",
    )

    def header_values(self) -> dict[str, str]:
        """The headers in the clear."""
        return {name: value.get_secret_value() for name, value in self.headers.items()}

    def option_values(self) -> dict[str, Any]:
        """The options in the clear."""
        return {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name, value in self.options.items()
        }


class Source(BaseModel):
    """A place that inputs may come from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: str = Field(
        description="`https://data.example.org/sets/`, `s3://bucket/path/`, `hf://datasets/org/`; "
        "a scheme alone (`https://`) is every place of that kind."
    )
    tenants: list[str] | None = Field(None, description="Names; default: every tenant.")
    credential: str | None = Field(
        None, description="Name in DATASSAY_CREDENTIALS; shown to this prefix only."
    )

    @field_validator("prefix")
    @classmethod
    def _known(cls, prefix: str) -> str:
        scheme, separator, _ = prefix.partition("://")
        if not separator or scheme not in SCHEMES or scheme == "file":
            raise ValueError("a prefix starts with https://, http://, s3:// or hf://")
        return prefix

    def covers(self, uri: str) -> bool:
        """Whether a URI lies below the prefix; `https://a/b` does not cover `https://a/bc`."""
        prefix = self.prefix
        return uri == prefix or uri.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def is_uri(reference: str) -> bool:
    """Whether an input is named by URI and not by the id of an upload."""
    return "://" in reference


def split_digest(reference: str) -> tuple[str, str | None]:
    """The URI, and the SHA-256 that its fragment (`#sha256=...`) asks for.

    Raises:
        Refused: another fragment.
    """
    uri, sign, fragment = reference.partition("#")
    if not sign:
        return uri, None
    match = _SHA256.fullmatch(fragment)
    if match is None:
        raise Refused("digest", "after # only sha256= and 64 lower-case hexadecimal digits may be")
    return uri, match[1]


class Sources:
    """The places that inputs may come from.

    Args:
        sources: the allow-list; the longest prefix that covers a URI counts.
        credentials: by name.
        files: whether `file://` is read at all.
    """

    def __init__(
        self, sources: Sequence[Source], credentials: Mapping[str, Credential], files: bool = False
    ) -> None:
        self._sources = sorted(sources, key=lambda s: len(s.prefix), reverse=True)
        self._credentials, self._files = credentials, files

    def require_credentials(self) -> None:
        """Raise ValueError for a source whose credential is not declared; workers ask."""
        for source in self._sources:
            if source.credential is not None and source.credential not in self._credentials:
                raise ValueError(f"{source.prefix}: there is no credential {source.credential!r}")

    def check(self, tenant: str, reference: str) -> Credential:
        """The credential to show for an input (an empty one where none is needed).

        Raises:
            Refused: malformed, or from a place that is not on the list for the tenant.
        """
        uri, _ = split_digest(reference)
        scheme = _check_form(uri)
        if scheme == "file":
            if not self._files:
                raise Refused("source", "file:// is read only by `datassay-server up --input-root`")
            return Credential()
        uri = parse_url(uri).url if scheme in ("https", "http") else uri
        for source in self._sources:
            if source.covers(uri) and (source.tenants is None or tenant in source.tenants):
                return self._credentials.get(source.credential or "", Credential())
        raise Refused("source", "the operator allows no input from there (DATASSAY_INPUT_SOURCES)")


def _check_form(uri: str) -> str:
    """The scheme of a well-formed URI. Raises `Refused`."""
    if not uri.isprintable() or "\\" in uri:
        raise Refused("url", "a URI has no control characters and no backslash")
    scheme, _, rest = uri.partition("://")
    if scheme not in SCHEMES:
        raise Refused("scheme", f"{scheme[:16]!r} is none of {', '.join(SCHEMES)}")
    path = urlsplit(uri).path if scheme in ("https", "http") else rest
    if not {".", ".."}.isdisjoint(unquote(path).split("/")):
        raise Refused("url", "a path with . or .. in it is not followed")
    if scheme in ("s3", "hf") and (rest.startswith("/") or "@" in rest.partition("/")[0]):
        raise Refused("credentials", "after :// comes the bucket or repository, no credentials")
    return scheme
