"""What the guard lets pass, and what it does not."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbound.guard import Guard, Refused, is_public, parse_url

PRIVATE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.9.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2001:10::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "198.20.0.1",
    "223.255.255.254",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450::1",
]


@pytest.mark.parametrize("text", PRIVATE)
def test_a_private_address_is_never_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_is_public(text: str) -> None:
    assert is_public(ip_address(text))


@given(st.ip_addresses(v=4))
def test_a_disguise_changes_no_verdict(address: IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        assert is_public(IPv6Address(int(IPv6Address(prefix)) | int(address))) == is_public(address)
    # 6to4 and IPv4-compatible addresses lead back into IPv4 wherever they point.
    assert not is_public(IPv6Address(0x2002 << 112 | int(address) << 80))
    assert not is_public(IPv6Address(int(address)))


@given(st.ip_addresses(v=6))
def test_only_assigned_unicast_is_public_in_ipv6(address: IPv6Address) -> None:
    wrapped = address.ipv4_mapped is not None or address in ip_network("64:ff9b::/96")
    if is_public(address) and not wrapped:
        assert int(address) >> 125 == 1


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("file:///etc/passwd", "scheme"),
        ("gopher://example.org/_", "scheme"),
        ("ftp://example.org/", "scheme"),
        ("//example.org/", "scheme"),
        ("example.org", "scheme"),
        ("https://", "host"),
        ("https:///etc/passwd", "host"),
        ("https://user@example.org/", "credentials"),
        ("https://user:pass@example.org/", "credentials"),
        ("https://@example.org/", "credentials"),
        ("https://example.org@169.254.169.254/", "credentials"),
        ("https://example.org\\@127.0.0.1/", "url"),
        ("https://example.org/ x", "url"),
        ("https://exa\nmple.org/", "url"),
        ("https://example.org/\x00", "url"),
        ("https://ex\u0430mple.org/", "url"),
        ("https://\u2460\u2461\u2466.0.0.1/", "url"),
        ("https://example.org/#part", "url"),
        ("https://example.org#@127.0.0.1/", "url"),
        ("https://" + "a" * 3000 + ".org", "url"),
        ("https://[::1", "url"),
        ("https://example.org:port/", "url"),
        ("https://example.org:99999/", "url"),
        ("https://example.org:0/", "port"),
        ("https://2130706433/", "host"),
        ("https://0x7f000001/", "host"),
        ("https://0x7f.0.0.1/", "host"),
        ("https://0177.0.0.1/", "host"),
        ("https://127.1/", "host"),
        ("https://1.2.3.4.5/", "host"),
        ("https://127.0.0.1./", "host"),
        ("https://a..b/", "host"),
        ("https://-a.org/", "host"),
        ("https://exa%6dple.org/", "host"),
    ],
)
def test_a_url_that_two_parsers_may_read_differently_is_refused(url: str, rule: str) -> None:
    with pytest.raises(Refused) as caught:
        parse_url(url)
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTPS://Example.ORG", "https://example.org/"),
        ("https://example.org.:443/a?b=c&d=%2F", "https://example.org/a?b=c&d=%2F"),
        ("https://example.org:8443/~a/b;c", "https://example.org:8443/~a/b;c"),
        ("http://[2606:4700:4700:0::1111]:81/", "http://[2606:4700:4700::1111]:81/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
        ("https://example.org?q", "https://example.org/?q"),
    ],
)
def test_a_url_has_one_form(url: str, canonical: str) -> None:
    assert parse_url(url).url == canonical
    assert parse_url(canonical) == parse_url(url)


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.org/{text}"):
        try:
            target = parse_url(url)
        except Refused:
            continue
        assert parse_url(target.url) == target


def guard(*addresses: str, allow: tuple[str, ...] = ()) -> Guard:
    return Guard(allow, lambda host, port: list(addresses))


@pytest.mark.parametrize("addresses", [[], ["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["fe80::1%eth0"]])
def test_every_address_of_a_name_is_checked(addresses: list[str]) -> None:
    with pytest.raises(Refused, match="does not lead to public addresses") as caught:
        guard(*addresses).check(parse_url("https://example.org/"))
    assert caught.value.rule == "address"


def test_a_public_name_gives_the_addresses_that_were_checked() -> None:
    found = guard("8.8.8.8", "2606:4700::1").check(parse_url("https://example.org:8443/"))
    assert found == ["8.8.8.8", "2606:4700::1"]


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://example.org/", "scheme"),
        ("https://example.org:22/", "port"),
        ("https://example.org:6379/", "port"),
    ],
)
def test_public_hosts_are_spoken_to_over_https_on_its_ports(url: str, rule: str) -> None:
    with pytest.raises(Refused) as caught:
        guard("8.8.8.8").check(parse_url(url))
    assert caught.value.rule == rule


def test_what_does_not_resolve_is_told_like_what_is_private() -> None:
    def fails(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    texts = set()
    for found in (Guard((), fails), guard("192.168.0.1")):
        with pytest.raises(Refused) as caught:
            found.check(parse_url("https://inside.example.org/"))
        texts.add(str(caught.value))
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("allow", "url", "passes"),
    [
        ("inside.org", "http://inside.org:9000/", True),
        ("inside.org:9000", "http://inside.org:9000/", True),
        ("inside.org:9000", "http://inside.org:9001/", False),
        ("inside.org", "http://x.inside.org/", False),
        ("10.0.0.0/8", "http://other.org:81/", True),
        ("10.0.0.5", "https://other.org/", True),
        ("10.0.0.6", "https://other.org/", False),
        ("fd00::/8", "https://other.org/", False),
    ],
)
def test_the_allow_list(allow: str, url: str, passes: bool) -> None:
    found = guard("10.0.0.5", allow=(allow,))
    if passes:
        assert found.check(parse_url(url)) == ["10.0.0.5"]
    else:
        with pytest.raises(Refused):
            found.check(parse_url(url))


def test_an_allowed_network_excuses_its_own_addresses_only() -> None:
    with pytest.raises(Refused):
        guard("10.0.0.5", "127.0.0.1", allow=("10.0.0.0/8",)).check(parse_url("https://a.org/"))


@pytest.mark.parametrize("entry", ["", "a b", "http://a.org", "a.org:x", "10.0.0.1/8", "[::1]:80"])
def test_a_wrong_entry_of_the_allow_list_is_told(entry: str) -> None:
    with pytest.raises(ValueError, match="is no host, host:port or network"):
        Guard([entry])
