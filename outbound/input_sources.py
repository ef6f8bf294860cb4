"""Inputs by URI: which places a tenant's jobs may read from, and with whose credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Self
from urllib.parse import unquote, urlsplit

from infra.outbound_settings import SCHEMES, Credential, Source
from infra.settings import Settings
from outbound.guard import Refused, parse_url

_SHA256 = re.compile(r"sha256=([0-9a-f]{64})")


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

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The places that the settings declare."""
        files = settings.input_root is not None
        return cls(settings.input_sources, settings.credentials, files=files)

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
