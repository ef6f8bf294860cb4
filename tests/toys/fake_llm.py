"""An OpenAI-compatible server that misbehaves on command: the port to the outside is faked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeLLM:
    """Answers `n` texts a prompt after the scripted failures, and notes every request.

    Every answer has two tokens, its halves. The vector of a text is its length and 1.

    Attributes:
        say: the texts that answer a request. likeliest: the likeliest tokens of every place.
        failures: (status, headers) to answer first, one a request.
        dead_after: from this many answers on, every request is a 503.
    """

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.body: bytes | None = None
        self.say: Callable[[dict[str, Any]], list[str]] = said
        self.likeliest: Callable[[dict[str, Any]], dict[str, float]] = lambda body: {}
        self.dead_after: int | None = None
        self.answered = self.in_flight = self.most_in_flight = 0
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    def respond(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        with self._lock:
            self.requests.append(body | {"path": path})
            if self.failures:
                return *self.failures.pop(0), b"try again"
            if self.dead_after is not None and self.answered >= self.dead_after:
                return 503, {}, b"down"
            self.answered += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.gate.wait(10)
        with self._lock:
            self.in_flight -= 1
        if self.body is not None:
            return 200, {}, self.body
        return 200, {}, json.dumps(self._answer(path, body)).encode()

    def _answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path.endswith("/embeddings"):
            rows = [{"index": k, "embedding": [len(t), 1]} for k, t in enumerate(body["input"])]
            return {"data": rows[::-1]}
        choices: list[dict[str, Any]] = []
        for k, text in enumerate(self.say(body)):
            half = len(text) // 2
            values, tokens, top = [-0.5, -0.25], [text[:half], text[half:]], self.likeliest(body)
            if "messages" in body:
                others = [{"token": token, "logprob": value} for token, value in top.items()]
                content = [
                    {"token": token, "logprob": value, "top_logprobs": others}
                    for token, value in zip(tokens, values, strict=True)
                ]
                choice = {"message": {"content": text}, "logprobs": {"content": content}}
            else:
                given = {"token_logprobs": values, "tokens": tokens, "top_logprobs": [top] * 2}
                choice = {"text": text, "logprobs": given}
            choices.append(choice | {"index": k})
        usage = {"prompt_tokens": 3, "completion_tokens": 2 * body["n"]}
        return {"choices": choices[::-1], "usage": usage}


def asked(body: dict[str, Any]) -> str:
    """The prompt of a request, or the turn of the chat."""
    prompt: str = body.get("prompt") or body["messages"][0]["content"]
    return prompt


def said(body: dict[str, Any]) -> list[str]:
    """The prompt again, with "sure" when greedy and else one of three numbers."""
    greedy = body["temperature"] == 0
    return [f"{asked(body)} {'sure' if greedy else k % 3}" for k in range(body["n"])]


def listening(llm: FakeLLM, port: int = 0) -> ThreadingHTTPServer:
    """A server on a port (0: any) that has yet to run; it is healthy as soon as it does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(200, {}, b"")

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body["key"] = self.headers.get("Authorization")
            self._answer(*llm.respond(self.path, body))

        def _answer(self, status: int, headers: dict[str, Any], content: bytes) -> None:
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client went away, as it may

        def log_message(self, *_: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


@contextmanager
def serving(llm: FakeLLM) -> Iterator[str]:
    """Serve it on a port of its own; yields the base URL."""
    server = listening(llm)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        llm.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
