"""What is learned of a server from the words in which it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from methods.inference.server_quirks import Quirks

SENT: dict[str, Any] = {
    "model": "m",
    "messages": [],
    "n": 10,
    "temperature": 0.0,
    "top_p": 1.0,
    "max_tokens": 64,
    "seed": 1,
    "stop": ["\n"],
    "logprobs": True,
    "top_logprobs": 20,
}


@pytest.mark.parametrize(
    ("said", "learned"),
    [
        ("Use 'max_completion_tokens' instead.", {"renamed": True}),
        ("'n' : number must be at most 1", {"single": True}),
        ("Multiple candidates is not enabled for models/x", {"single": True}),
        ("Only one completion choice is allowed", {"single": True}),
        ("Range of n should be [1, 4]", {"single": True}),
        ("body.n: Extra inputs are not permitted", {"single": True}),
        ("`temperature` and `top_p` cannot both be specified", {"dropped": {"top_p"}}),
        ("'temperature' does not support 0 with this model", {"dropped": {"temperature"}}),
        ("Unknown parameter: 'seed'", {"dropped": {"seed"}}),
        ("top_logprobs must be at most 5", {"most": 5}),
        ("Requested sample logprobs of 20, which is greater than max allowed: 5", {"most": 5}),
        ("top_logprobs is not supported", {"most": 0}),
        ("logprobs is not supported for this model", {"dropped": {"logprobs", "top_logprobs"}}),
        ("This model's maximum context length is 4096 tokens.", {}),
        ("max_tokens is too large: max_completion_tokens and length are at most 4096", {}),
        ("'What is the temperature of the sun?' was filtered by the content policy", {}),
    ],
    ids=range(16),
)
def test_words_of_a_refusal(said: str, learned: dict[str, Any]) -> None:
    quirks = Quirks()
    assert quirks.learn(400, said, SENT) is bool(learned)
    for name, value in learned.items():
        assert getattr(quirks, name) == value
    # What was learned is heeded, and all else is asked as before.
    _, body = quirks.fitted("/chat/completions", SENT)
    assert (body == SENT) is (not learned)
    assert not set(body) & quirks.dropped
    if quirks.most is not None:
        assert body.get("top_logprobs", 0) == quirks.most


def test_a_403_is_no_habit_unless_it_speaks_of_log_probabilities() -> None:
    assert not Quirks().learn(403, "You are not allowed to use this model", SENT)
    assert Quirks().learn(403, "You are not allowed to request logprobs", SENT)


def test_a_model_of_chats_is_asked_by_chat() -> None:
    quirks = Quirks()
    sent = {"prompt": "a", "n": 1}
    said = "The completion operation does not work with the specified model"
    assert quirks.learn(400, said, sent)
    assert quirks.fitted("/completions", sent)[0] == "/chat/completions"
