"""Settings of connections to elsewhere: allowed private hosts, input sources, credentials.

`outbound` decides by them.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator

#: Of input URIs.
SCHEMES = ("https", "http", "s3", "hf", "file")
HOST_NAME = re.compile(
    r"(?=.{1,253}\.?$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*"
    r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?\.?"
)


def private_host(entry: str) -> str:
    """A host name, host:port, address or network, in lower case.

    Raises:
        ValueError: it is none of these.
    """
    try:
        ip_network(entry)
    except ValueError:
        name, _, port = entry.lower().partition(":")
        if not HOST_NAME.fullmatch(name) or (port and not port.isdecimal()):
            raise ValueError(f"{entry!r} is no host, host:port or network") from None
    return entry.lower()


PrivateHost = Annotated[str, AfterValidator(private_host)]


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
