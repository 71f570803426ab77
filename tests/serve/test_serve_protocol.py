"""The HTTP layer against the official client, and against bodies that no client should send."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import openai
import pytest

from feldspar.records import Message
from feldspar.serve import (
    STAGE_HEADER,
    ChatReply,
    ChatRequest,
    Choice,
    ModelCard,
    RequestError,
    listening,
    make_app,
)

CARDS = (ModelCard("echo", "r1"), ModelCard("other"))
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}


@dataclass
class Echo:
    """Answers with the last message; keeps what it was asked."""

    asked: list[ChatRequest] = field(default_factory=list)

    async def complete(self, request: ChatRequest) -> ChatReply:
        self.asked.append(request)
        text = request.messages[-1].content
        if text == "too long":
            raise RequestError(400, "prompt is too long", "messages", "context_length_exceeded")
        reason = "length" if request.max_tokens == 1 else "stop"
        choices = tuple(Choice(f"{text} {i}", reason) for i in range(request.n))
        return ChatReply(choices=choices, prompt_tokens=7, completion_tokens=3)


def ask(use: Callable[[openai.AsyncOpenAI], Awaitable[Any]], echo: Echo) -> Any:
    async def run() -> Any:
        async with listening(make_app(CARDS, echo.complete)) as url:
            assert url.startswith("http://127.0.0.1:")
            async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
                return await use(client)

    return asyncio.run(run())


def post(
    body: bytes, path: str = "/chat/completions", max_body_bytes: int = 10_000
) -> tuple[int, Any]:
    async def run() -> tuple[int, Any]:
        app = make_app(CARDS, Echo().complete, max_body_bytes)
        async with (
            listening(app) as url,
            aiohttp.ClientSession() as session,
            session.post(
                url + path, data=body, headers={"Content-Type": "application/json"}
            ) as response,
        ):
            return response.status, await response.json()

    return asyncio.run(run())


def test_official_client_gets_its_choices_and_usage() -> None:
    echo = Echo()
    reply = ask(
        lambda client: client.chat.completions.create(
            model="echo",
            messages=[{"role": "system", "content": "be"}, {"role": "user", "content": "héllo"}],
            n=3,
            seed=5,
            temperature=0.5,
            max_tokens=9,
            stop=["###", "\n\n"],
            extra_headers={STAGE_HEADER: "skill-answer"},
        ),
        echo,
    )
    assert [c.message.content for c in reply.choices] == ["héllo 0", "héllo 1", "héllo 2"]
    assert [c.index for c in reply.choices] == [0, 1, 2]
    assert {c.finish_reason for c in reply.choices} == {"stop"}
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (7, 10)
    assert echo.asked == [
        ChatRequest(
            model="echo",
            messages=(
                Message(role="system", content="be"),
                Message(role="user", content="héllo"),
            ),
            n=3,
            seed=5,
            temperature=0.5,
            max_tokens=9,
            stop=("###", "\n\n"),
            stage="skill-answer",
        )
    ]


def test_max_completion_tokens_is_read_and_a_cut_reply_says_so() -> None:
    echo = Echo()
    reply = ask(
        lambda client: client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "a"}], max_completion_tokens=1
        ),
        echo,
    )
    assert echo.asked[0].max_tokens == 1
    assert reply.choices[0].finish_reason == "length"


def test_models_carry_their_revision() -> None:
    models = ask(lambda client: client.models.list(), Echo()).data
    assert [(m.id, m.model_extra["revision"]) for m in models] == [("echo", "r1"), ("other", "")]


def test_stats_count_by_stage() -> None:
    async def run() -> Any:
        async with (
            listening(make_app(CARDS, Echo().complete)) as url,
            aiohttp.ClientSession() as session,
        ):
            for stage in ("judge-answer", "skill-answer", "judge-answer"):
                headers = {STAGE_HEADER: stage}
                async with session.post(f"{url}/chat/completions", json=HELLO, headers=headers):
                    pass
            async with session.get(url.removesuffix("/v1") + "/stats") as response:
                return await response.json()

    stats = asyncio.run(run())
    assert stats == {"requests": 3, "by_stage": {"judge-answer": 2, "skill-answer": 1}}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError),
        ({"n": 0}, openai.UnprocessableEntityError),
        ({"temperature": -1}, openai.UnprocessableEntityError),
        ({"stop": [1]}, openai.UnprocessableEntityError),
        ({"messages": []}, openai.UnprocessableEntityError),
        ({"messages": [{"role": "robot", "content": "x"}]}, openai.UnprocessableEntityError),
        ({"messages": [{"role": "user", "content": 3}]}, openai.UnprocessableEntityError),
        ({"stream": True}, openai.UnprocessableEntityError),
        ({"top_p": 0.5}, openai.UnprocessableEntityError),
        ({"messages": [{"role": "user", "content": "too long"}]}, openai.BadRequestError),
    ],
)
def test_faults_have_openai_shape(
    change: dict[str, Any], error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error) as caught:
        ask(lambda client: client.chat.completions.create(**{**HELLO, **change}), Echo())
    assert caught.value.param is not None
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"\xff\xfe", b'"x"', b"[" * 9000], ids=lambda b: repr(b[:3])
)
def test_a_body_that_is_no_json_object_is_400(body: bytes) -> None:
    status, reply = post(body)
    assert status == 400
    assert "body" in reply["error"]["message"]


def test_a_large_body_is_413() -> None:
    status, reply = post(b"x" * 10_001)
    assert status == 413
    assert reply["error"]["type"] == "invalid_request_error"


def test_an_unknown_path_is_404_and_a_wrong_method_405() -> None:
    assert post(b"{}", "/completions")[0] == 404
    status, reply = post(b"{}", "/models")
    assert status == 405
    assert reply["error"]["message"].startswith("POST /v1/models")


def test_text_parts_are_joined_and_fields_without_effect_are_taken() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    body = {
        "model": "other",
        "messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}],
        "top_p": 1.0,
        "stream": False,
        "user": "someone",
        "logprobs": None,
    }
    status, reply = post(json.dumps(body).encode())
    assert status == 200
    assert reply["choices"][0]["message"]["content"] == "ab 0"
