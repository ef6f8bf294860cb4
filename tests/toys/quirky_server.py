"""An OpenAI-compatible server with the habits of others: each has a name, `/NAME/v1` is its URL."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWERS = ("Canberra", "Canberra", "Sydney", "It is Canberra")
#: What each habit says to a request that it does not take, or None.
_REFUSES = {
    "one_only": lambda b: "'n' : number must be at most 1" if b.get("n", 1) > 1 else None,
    "renames": lambda b: (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead."
        if "max_tokens" in b
        else None
    ),
    "warm": lambda b: (
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default "
        "(1) value is supported."
        if b.get("temperature", 1) != 1
        else None
    ),
    "no_logprobs": lambda b: (
        "logprobs is not supported for this model" if "logprobs" in b else None
    ),
    "few_logprobs": lambda b: (
        "top_logprobs must be at most 5" if b.get("top_logprobs", 0) > 5 else None
    ),
    "no_top_logprobs": lambda b: "top_logprobs is not supported" if b.get("top_logprobs") else None,
    "no_seed": lambda b: "Unknown parameter: 'seed'" if "seed" in b else None,
    "short": lambda b: (
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."
        if "LONG" in b["messages"][-1]["content"]
        else None
    ),
    "strict": lambda b: "The response was filtered due to the prompt triggering a policy.",
}


def logprobs(text: str, top: int) -> dict[str, Any]:
    content = []
    for place, token in enumerate(re.findall(r"\s?\S+", text)):
        value = -0.1 * (place + 1)
        others = [
            {"token": f"alt{k}" if k else token, "logprob": value - 2 * k} for k in range(top)
        ]
        content.append({"token": token, "logprob": value, "bytes": None, "top_logprobs": others})
    return {"content": content}


def choice(habit: str, number: int, body: dict[str, Any]) -> dict[str, Any]:
    """What the server gives as one choice of a chat."""
    text = ANSWERS[number % 4]
    one: dict[str, Any] = {"index": 0 if habit == "zero_index" else number}
    if habit == "no_index":
        del one["index"]
    one["finish_reason"] = {
        "cuts": "length",
        "filters": "content_filter",
        "calls": "tool_calls",
    }.get(habit, "stop")
    message: dict[str, Any] = {"role": "assistant", "content": text}
    asked = bool(body.get("logprobs"))
    given = logprobs(text, body.get("top_logprobs", 0)) if asked else None
    match habit:
        case "thinks":
            message["content"] = f"<think>number {number}, {'x' * number}</think>\n\n{text}"
            given = logprobs(message["content"], 0) if asked else None
        case "thinks_unopened":
            message["content"] = f"some thought {number}\n</think>\n{text}"
        case "thinks_on":
            message["content"], one["finish_reason"] = "<think>and then", "length"
        case "reasons":
            message["reasoning_content"] = f"long private thought {number}"
            given = logprobs(f"long private thought {number} {text}", 0) if asked else None
        case "reasons_on":
            message |= {"content": None, "reasoning_content": "still at it"}
            one["finish_reason"] = "length"
        case "refuses":
            message |= {"content": None, "refusal": f"I can't help with that, {number}."}
        case "filters":
            message["content"] = ""
        case "parts":
            message["content"] = [{"type": "text", "text": text}]
        case "calls":
            function = {"name": "f", "arguments": json.dumps({"a": number % 2})}
            message |= {"content": None, "tool_calls": [{"type": "function", "function": function}]}
        case "placeholders":
            if given:
                given["content"][0]["logprob"] = -9999.0
        case "null_logprobs":
            given = None
        case "empty_logprobs":
            given = {"content": []}
        case "together":
            whole = logprobs(text, 0)["content"]
            given = {
                "tokens": [token["token"] for token in whole],
                "token_logprobs": [token["logprob"] for token in whole],
            }
    return one | {"message": message, "logprobs": given}


class _Handler(BaseHTTPRequestHandler):
    asked: list[dict[str, Any]]

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        habit = self.path.split("/")[1]
        if "messages" not in body:
            self._send(404, {"error": {"message": "Not Found"}})
            return
        refuses = _REFUSES.get(habit)
        if refuses is not None and (why := refuses(body)):
            self._send(400, {"error": {"message": why, "type": "invalid_request_error"}})
            return
        n = 1 if habit == "ignores_n" else body.get("n", 1)
        found: dict[str, Any] = {"choices": [choice(habit, k, body) for k in range(n)]}
        if habit == "null_usage":
            found["usage"] = {"prompt_tokens": None, "completion_tokens": 3}
        elif habit != "no_usage":
            found["usage"] = {"prompt_tokens": 5, "completion_tokens": 5}
        data = json.dumps(found)
        if habit == "infinite":
            data = data.replace("-0.1", "-Infinity")
        self._send(200, data)

    def _send(self, status: int, body: Any) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def quirky_server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The URL before the habit's name, and the requests so far."""
    asked: list[dict[str, Any]] = []
    handler = type("Handler", (_Handler,), {"asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
