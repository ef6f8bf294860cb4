"""Which addresses may be reached: the wall against server-side request forgery.

A name is resolved once, every address that it has is checked, and the connection goes to a checked
address. A resolver that answers differently the next time (DNS rebinding) changes nothing.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from infra.outbound_settings import HOST_NAME, private_host

Address = IPv4Address | IPv6Address

#: Host and port to the addresses of the host, as text; raises OSError.
Resolver = Callable[[str, int], list[str]]

#: Ports of public hosts; anything else needs an entry in the allow-list.
PORTS = (443, 8443)

_URL = re.compile(r"[!#-;=?-\[\]_a-z~]+")  # printable ASCII without the delimiters of RFC 3986, 2
_MAX_URL = 2048

# What `is_global` of older Pythons takes for public, and what leads back into IPv4.
_NEVER = [
    ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
]
_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")


class Refused(ValueError):  # noqa: N818 - a decision, told as one
    """A URL or an address is not allowed.

    Attributes:
        rule: which rule refused: `url`, `scheme`, `credentials`, `host`, `port`, `address`,
            `redirect`, `source`, `digest`.
    """

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True)
class Target:
    """A URL taken apart; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The URL again, in one form only."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        port = "" if self.port == default else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom the URL talks to."""
        return self.scheme, self.host, self.port


def parse_url(url: str) -> Target:
    """Take an http(s) URL apart, refusing every form that two parsers may read differently.

    Raises:
        Refused: for other schemes, credentials, fragments, numbers in place of a host, control
            characters.
    """
    if len(url) > _MAX_URL or not _URL.fullmatch(url.lower()):
        raise Refused("url", f"a URL has up to {_MAX_URL} printable ASCII characters, % escaped")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused("url", f"it is no URL: {error}") from error
    if parts.scheme not in ("https", "http"):
        raise Refused("scheme", f"the scheme {parts.scheme[:16]!r} is not allowed, https is")
    if "@" in parts.netloc:
        raise Refused("credentials", "a URL must not carry a user name or password")
    if "#" in url:
        raise Refused("url", "a fragment (#...) has no meaning here")
    host = _host(parts.hostname or "")
    if port == 0:
        raise Refused("port", "there is no port 0")
    query = f"?{parts.query}" if parts.query else ""
    default = 443 if parts.scheme == "https" else 80
    return Target(parts.scheme, host, port or default, f"{parts.path or '/'}{query}")


def _host(host: str) -> str:
    if not host:
        raise Refused("host", "the URL names no host")
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    # 127.1, 0x7f000001 and 2130706433 are all 127.0.0.1 to some resolvers.
    if not HOST_NAME.fullmatch(host):
        raise Refused("host", f"{host[:64]!r} is neither a host name nor an IP address")
    return host.rstrip(".")


def is_public(address: Address) -> bool:
    """Whether an address is a host of the public internet, also behind an IPv6 disguise."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _UNICAST:
            return False
    if address.is_multicast or address.is_reserved:
        return False
    return address.is_global and not any(address in network for network in _NEVER)


def system_resolver(host: str, port: int) -> list[str]:
    """Every address that the operating system knows of a host."""
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in addresses))


class Guard:
    """Decides where connections may go.

    Args:
        allow: what may be reached although it is private: host names (`minio.internal`), hosts
            with a port (`localhost:9000`), addresses and networks (`10.0.0.0/8`). These may also
            be spoken to over plain http and on any port.
        resolve: looks names up.

    Raises:
        ValueError: an entry of `allow` is none of these.
    """

    def __init__(self, allow: Sequence[str] = (), resolve: Resolver = system_resolver) -> None:
        self.resolve = resolve
        self._hosts: set[str] = set()
        self._networks = []
        for entry in map(private_host, allow):
            try:
                self._networks.append(ip_network(entry))
            except ValueError:
                self._hosts.add(entry)

    def check(self, target: Target) -> list[str]:
        """The addresses of a target, each of which may be connected to. Looks up once.

        Raises:
            Refused: an address is private, or the scheme or port is not for public hosts.
        """
        try:
            texts = self.resolve(target.host, target.port)
            addresses = [ip_address(text) for text in texts]
        except (OSError, ValueError):
            addresses = []
        if addresses and self._trusted(target, addresses):
            return [str(address) for address in addresses]
        # One answer for both, so that nobody learns which names exist inside.
        if not addresses or not all(is_public(address) for address in addresses):
            raise Refused("address", f"{target.host} does not lead to public addresses only")
        if target.scheme != "https":
            raise Refused("scheme", "public hosts are spoken to over https only")
        if target.port not in PORTS:
            raise Refused("port", f"port {target.port} is not one of {', '.join(map(str, PORTS))}")
        return [str(address) for address in addresses]

    def _trusted(self, target: Target, addresses: Sequence[Address]) -> bool:
        if self._hosts & {target.host, f"{target.host}:{target.port}"}:
            return True
        return all(any(a in network for network in self._networks) for a in addresses)
