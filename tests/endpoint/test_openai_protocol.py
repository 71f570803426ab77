"""Our own HTTP against the official client: the same requests, the same readings."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import openai
import pytest
from http_server import Answer, Request, serving

from feldspar.endpoint.calls import ChatCall, Completion, PromptCall, sound_text
from feldspar.endpoint.endpoint import Access, Endpoint
from feldspar.endpoint.openai_completions import SCORE_WAYS, read_scores

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": 'Wo wohnt Zorbo? \U0001f600 \u2028 "quoted"'},
]
CHAT = ChatCall(messages=MESSAGES, temperature=0.7, max_tokens=50, seed=3, stop=("\n\n",))
PROMPT = PromptCall(prompt=[5, 6, 7], max_tokens=9, temperature=1.0, seed=4, num_choices=2)


def reply(request: Request) -> Answer:
    usage = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
    if request.path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": "In Tarn."}
        choices: list[dict[str, Any]] = [{"index": 0, "finish_reason": "stop", "message": message}]
        kind = "chat.completion"
    else:
        choices = [
            {"index": 1, "finish_reason": "length", "text": "two"},
            {"index": 0, "finish_reason": "stop", "text": "one"},
        ]
        kind = "text_completion"
    return Answer(
        {"id": "x", "object": kind, "created": 0, "model": "m", "choices": choices, "usage": usage}
    )


def ours(url: str, call: ChatCall | PromptCall) -> Any:
    async def ask() -> Any:
        async with Endpoint(Access(max_retries=0), [url], "m") as endpoint:
            return await endpoint.complete(call)

    return asyncio.run(ask())


def test_the_official_client_sends_the_same_chat() -> None:
    with serving(reply) as server:
        found = ours(server.url, CHAT)
        with openai.OpenAI(base_url=server.url, api_key="none") as client:
            official = client.chat.completions.create(
                model="m", messages=MESSAGES, temperature=0.7, max_tokens=50, seed=3, stop=["\n\n"]
            )  # type: ignore[call-overload]
        mine, theirs = server.requests
    assert mine.body == theirs.body
    assert mine.path == theirs.path
    for name in ("Authorization", "Content-Type"):
        assert mine.headers[name] == theirs.headers[name]
    assert found.choices == (Completion(official.choices[0].message.content, "stop"),)
    assert found.usage == (official.usage.prompt_tokens, official.usage.completion_tokens)


def test_the_official_client_sends_the_same_prompt() -> None:
    with serving(reply) as server:
        found = ours(server.url, PROMPT)
        with openai.OpenAI(base_url=server.url, api_key="none") as client:
            official = client.completions.create(
                model="m", prompt=[5, 6, 7], max_tokens=9, temperature=1.0, top_p=1.0, seed=4, n=2
            )
        mine, theirs = server.requests
    assert mine.body == theirs.body
    by_index = sorted(official.choices, key=lambda choice: choice.index)
    assert [one.text for one in found.choices] == [choice.text for choice in by_index]
    assert [one.finish_reason for one in found.choices] == ["stop", "length"]


def test_connections_are_kept_and_nothing_packed_is_asked_for() -> None:
    async def ask(url: str) -> None:
        async with Endpoint(Access(), [url], "m") as endpoint:
            for _ in range(3):
                await endpoint.complete(CHAT)

    with serving(reply) as server:
        asyncio.run(ask(server.url))
        assert {r.headers["Accept-Encoding"] for r in server.requests} == {"identity"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("half \ud83d", "half \ufffd"),
        ("\udc00 half", "\ufffd half"),
        ("two halves \ud83d\ude00", "two halves \U0001f600"),
        ("", ""),
    ],
)
def test_half_characters_are_replaced(text: str, expected: str) -> None:
    assert sound_text(text) == expected


ECHO = {
    "tokens": ["a", "b", "c", "x"],
    "token_logprobs": [None, -0.5, -1.5, -9.0],
    "text_offset": [0, 1, 2, 3],
    "top_logprobs": [None, {"b": -0.5}, {"z": -0.1}, {"x": -9.0}],
}


def scores_of(choice: dict[str, Any], ids: list[int] | str) -> list[float] | None:
    found = read_scores({"choices": [choice]}, ids)
    return None if found is None else [token.log_prob for token in found]


def test_the_three_ways_to_tell_log_probabilities_are_read() -> None:
    told = [None, {"8": {"logprob": -0.5, "rank": 1, "decoded_token": "b"}},
            {"1": {"logprob": -0.1}, "9": {"logprob": -1.5, "rank": 2}}]  # fmt: skip
    assert scores_of({"prompt_logprobs": told}, [7, 8, 9]) == [-0.5, -1.5]
    assert scores_of({"prompt_logprobs": told}, [7, 8]) is None
    assert scores_of({"logprobs": ECHO}, [7, 8, 9]) == [-0.5, -1.5]
    assert scores_of({"logprobs": ECHO}, "abc") == [-0.5, -1.5]
    assert scores_of({"prompt_logprobs": told}, "abc") is None
    assert (
        scores_of({"logprobs": {**ECHO, "token_logprobs": [None, None, -1.5]}}, [7, 8, 9]) is None
    )
    assert scores_of({"logprobs": None}, [7, 8, 9]) is None
    best = read_scores({"choices": [{"logprobs": ECHO}]}, [7, 8, 9])
    assert best is not None
    assert [token.is_best for token in best] == [True, False]
    assert [(token.text, token.start) for token in best] == [("b", 1), ("c", 2)]
    assert len(SCORE_WAYS) == 3
    assert not math.isnan(sum(token.log_prob for token in best))


def test_a_body_is_what_json_says() -> None:
    with serving(reply) as server:
        ours(server.url, ChatCall(messages=[{"role": "user", "content": "half \ud83d"}],
                                  temperature=0.0, max_tokens=5))  # fmt: skip
        (request,) = server.requests
    assert json.loads(request.raw)["messages"][0]["content"] == "half \ufffd"
