"""Connections go to the address that was checked, and answers are bounded."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbound.guard import Guard, Refused, parse_url
from outbound.http import MAX_REDIRECTS, TooLarge, Unreachable, download
from tests.web import Answer, Web, serve_web


@pytest.fixture
def web() -> Iterator[Web]:
    with serve_web() as server:
        yield server


def get(
    guard: Guard, url: str, limit: int = 1 << 20, tls: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    parts: list[bytes] = []
    call = download(guard, parse_url(url), {"Authorization": "Bearer x"}, parts.append, limit, tls)
    return asyncio.run(call), b"".join(parts)


LOCAL = Guard(["127.0.0.1"])


def test_a_body_and_a_status(web: Web) -> None:
    web.answers["/a?b=1"] = Answer(body=b"hello")
    assert get(LOCAL, f"{web.url}/a?b=1") == (200, b"hello")
    assert get(LOCAL, f"{web.url}/none") == (404, b"")
    assert web.requests[0].headers["host"] == f"127.0.0.1:{web.port}"


def test_loopback_is_refused_without_the_allow_list(web: Web) -> None:
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
        with pytest.raises(Refused):
            get(Guard(), f"https://{host}:{web.port}/")
    assert web.requests == []


class Flipping:
    """Answers with a public address first and with a private one ever after."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked += 1
        return [self.answers[min(self.asked, len(self.answers)) - 1]]


def test_a_name_is_resolved_once_a_connection(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second answer would be a server that does not exist; only the first may be used.
    resolver = Flipping("127.0.0.1", "127.0.0.99")
    web.answers["/"] = Answer(body=b"right")
    guard = Guard(["127.0.0.1", "127.0.0.99"], resolver)

    def never(*args: object, **kwargs: object) -> list[object]:
        raise AssertionError("the system's resolver was asked")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    assert get(guard, f"http://rebind.example:{web.port}/") == (200, b"right")
    assert resolver.asked == 1
    assert web.requests[0].headers["host"] == f"rebind.example:{web.port}"


def test_rebinding_between_two_requests_is_noticed(web: Web) -> None:
    guard = Guard(["10.0.0.0/8"], Flipping("10.255.255.1", "127.0.0.1"))
    guard.check(parse_url("https://rebind.example/"))
    with pytest.raises(Refused):
        get(guard, f"http://rebind.example:{web.port}/")
    assert web.requests == []


def test_the_next_address_is_tried_when_one_does_not_answer(web: Web) -> None:
    web.answers["/"] = Answer(body=b"x")
    guard = Guard(["127.0.0.0/8"], lambda host, port: ["127.0.0.77", "127.0.0.1"])
    assert get(guard, f"http://two.example:{web.port}/") == (200, b"x")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_within_a_place_are_followed(web: Web, status: int) -> None:
    web.answers["/a"] = Answer(status, headers={"Location": "/b"})
    web.answers["/b"] = Answer(body=b"there")
    assert get(LOCAL, f"{web.url}/a") == (200, b"there")
    assert web.requests[1].headers["authorization"] == "Bearer x"


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:1/",
        "http://[::1]/",
        "http://2130706433/",
        "http://localhost/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "https://user@example.org/",
        "http://127.0.0.1\\@example.org/",
    ],
)
def test_no_redirect_leads_into_a_private_place(web: Web, location: str) -> None:
    """Not even into one that is on the allow-list."""
    web.answers["/"] = Answer(302, headers={"Location": location})
    with pytest.raises(Refused):
        get(Guard(["127.0.0.0/8", "169.254.0.0/16", "::1"]), web.url + "/")
    assert len(web.requests) == 1


def test_another_server_on_loopback_is_not_reached_and_gets_no_credentials(web: Web) -> None:
    with serve_web() as other:
        web.answers["/"] = Answer(302, headers={"Location": f"{other.url}/secret"})
        with pytest.raises(Refused, match="does not lead to public"):
            get(LOCAL, web.url + "/")
        assert other.requests == []


def test_redirects_are_few(web: Web) -> None:
    web.answers["/"] = Answer(302, headers={"Location": "/"})
    with pytest.raises(Refused) as caught:
        get(LOCAL, web.url + "/")
    assert caught.value.rule == "redirect"
    assert len(web.requests) == MAX_REDIRECTS + 1


def test_size_is_bounded_by_what_is_said_and_by_what_comes(web: Web) -> None:
    web.answers["/said"] = Answer(body=b"x" * 2000)
    chunks = b"".join(b"3e8\r\n" + b"x" * 1000 + b"\r\n" for _ in range(100)) + b"0\r\n\r\n"
    web.answers["/sent"] = Answer(body=chunks, headers={"Transfer-Encoding": "chunked"})
    for path in ("/said", "/sent"):
        with pytest.raises(TooLarge):
            get(LOCAL, web.url + path, limit=1999)
    assert get(LOCAL, f"{web.url}/said", limit=2000)[1] == b"x" * 2000


def test_a_compressed_answer_is_not_unpacked(web: Web) -> None:
    web.answers["/"] = Answer(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    with pytest.raises(Unreachable, match="compressed"):
        get(LOCAL, web.url + "/")
    assert web.requests[0].headers["accept-encoding"] == "identity"


def test_a_body_that_breaks_off_is_told(web: Web) -> None:
    web.answers["/"] = Answer(
        body=b"half", headers={"Content-Length": "100", "Connection": "close"}
    )
    with pytest.raises(Unreachable):
        get(LOCAL, web.url + "/")


def test_a_server_that_is_not_there(web: Web) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(Unreachable, match="does not answer"):
            get(LOCAL, f"http://127.0.0.1:{closed.getsockname()[1]}/")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of `data.example`, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=data.example",
            "-addext",
            "subjectAltName=DNS:data.example",
            "-keyout",
            path,
            "-out",
            f"{path}.crt",
        ],
        check=True,
        capture_output=True,
    )
    return path


def test_tls_is_verified_for_the_name_though_the_address_is_pinned(certificate: Path) -> None:
    names: list[str | None] = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(f"{certificate}.crt", certificate)
    server.sni_callback = lambda _, name, __: names.append(name)
    trusting = ssl.create_default_context(cafile=f"{certificate}.crt")
    guard = Guard(["127.0.0.1"], lambda host, port: ["127.0.0.1"])
    with serve_web(server) as web:
        web.answers["/"] = Answer(body=b"safe")
        url = f"https://data.example:{web.port}/"
        assert get(guard, url, tls=trusting) == (200, b"safe")
        assert names == ["data.example"]
        assert web.requests[0].headers["host"] == f"data.example:{web.port}"
        for wrong in (f"https://other.example:{web.port}/", f"https://127.0.0.1:{web.port}/"):
            with pytest.raises(Unreachable):
                get(guard, wrong, tls=trusting)
        with pytest.raises(Unreachable):
            get(guard, url)  # a stranger's certificate
        assert len(web.requests) == 1
