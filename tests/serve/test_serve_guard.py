"""Who may use the server, and that every fault is one JSON object and no traceback."""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from feldspar.records import Message
from feldspar.serve import STAGE_HEADER, ChatReply, ChatRequest, Choice, ModelCard, make_app
from feldspar.serve.app import listening

ASK = {"model": "a/b", "messages": [{"role": "user", "content": "hello"}]}
JSON = {"Content-Type": "application/json"}


async def complete(request: ChatRequest) -> ChatReply:
    if request.messages[-1] == Message(role="user", content="break"):
        raise KeyError("ours")
    return ChatReply(choices=(Choice("yes"),), prompt_tokens=1, completion_tokens=1)


def use(
    method: str = "POST",
    path: str = "/v1/chat/completions",
    *,
    headers: Mapping[str, str] = JSON,
    body: object = ASK,
    key: str | None = None,
    is_well: bool = True,
) -> tuple[int, Any]:
    async def run() -> tuple[int, Any]:
        app = make_app([ModelCard("a/b", "r1")], complete, key=key, is_well=lambda: is_well)
        data = None if method == "GET" else json.dumps(body).encode()
        async with listening(app) as url, aiohttp.ClientSession() as session:
            root = url.removesuffix("/v1")
            async with session.request(method, root + path, data=data, headers=headers) as response:
                assert response.content_type == "application/json"
                return response.status, await response.json()

    return asyncio.run(run())


def raw(sent: bytes, *, ends: bool) -> bytes:
    """What comes back for bytes on a connection, which then `ends` or waits."""

    async def run() -> bytes:
        async with listening(make_app([ModelCard("a/b")], complete)) as url:
            host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(sent)
            if ends:
                writer.write_eof()
            async with asyncio.timeout(20):
                got = await reader.read()
            writer.close()
            return got

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (JSON, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        (JSON | {"Host": "localhost:8000"}, 200),
        (JSON | {"Host": "[::1]:8000"}, 200),
        (JSON | {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}, 200),
        # A name that was made to point to this machine.
        (JSON | {"Host": "rebound.example:8000"}, 403),
        (JSON | {"Host": "127.0.0.1.example"}, 403),
        (JSON | {"Host": "[::1"}, 403),
        (JSON | {"Origin": "https://evil.example"}, 403),
        (JSON | {"Origin": "null"}, 403),
        (JSON | {"Host": "localhost:8000", "Origin": "http://localhost:3000"}, 403),
        # What a form of another page may send without asking.
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_page_of_another_site_cannot_use_it(headers: dict[str, str], status: int) -> None:
    got, reply = use(headers=headers)
    assert got == status
    assert ("choices" in reply) == (status == 200)
    if status != 200:
        assert reply["error"]["message"]


def test_behind_a_key_any_name_may_stand_in_host_and_still_no_other_origin() -> None:
    headers = JSON | {"Host": "gpu7.example:8000", "Authorization": "Bearer s"}
    assert use(headers=headers, key="s")[0] == 200
    assert use(headers=headers | {"Origin": "https://evil.example"}, key="s")[0] == 403


def test_an_empty_key_is_none_and_opens_nothing() -> None:
    assert use(headers=JSON | {"Host": "rebound.example:8000"}, key="")[0] == 403


def test_health_needs_no_key_and_says_when_the_model_has_gone() -> None:
    assert use("GET", "/health", key="s") == (200, {"status": "ok"})
    status, reply = use("GET", "/health", is_well=False)
    assert status == 503
    assert "start the server again" in reply["error"]["message"]


def test_a_model_can_be_looked_up_also_where_its_name_is_a_path() -> None:
    status, card = use("GET", "/v1/models/a/b")
    assert (status, card["id"], card["revision"]) == (200, "a/b", "r1")
    status, reply = use("GET", "/v1/models/gpt-9")
    assert (status, reply["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "none"},
        {"tool_choice": "auto", "tools": []},
        {"parallel_tool_calls": False},
        {"parallel_tool_calls": True},
        {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0},
        {"response_format": {"type": "text"}},
        {"frequency_penalty": 0.0, "logit_bias": {}, "best_of": 1},
        {
            "messages": [
                {"role": "assistant", "content": None},
                {"role": "user", "content": "and now?"},
            ]
        },
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_parameters_that_change_nothing_are_taken(fields: dict[str, object]) -> None:
    assert use(body=ASK | fields)[0] == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "required"},
        {"tools": [{"type": "function"}]},
        {"repetition_penalty": 1.1},
        {"top_k": 40},
        {"response_format": {"type": "json_object"}},
        {"anything": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_parameters_that_would_change_something_are_refused(fields: dict[str, object]) -> None:
    status, reply = use(body=ASK | fields)
    assert (status, reply["error"]["code"]) == (422, "unsupported_parameter")
    assert reply["error"]["param"] in fields


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "\ud83d"}]},
        {"stop": ["\udc00"]},
        {"model": "\ud800"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_half_of_a_character_is_400(fields: dict[str, object]) -> None:
    status, reply = use(body=ASK | fields)
    assert status == 400
    assert "half of a character" in reply["error"]["message"]
    assert use(body=ASK | {"user": "whole: \U0001f600"})[0] == 200


def test_a_fault_of_ours_is_500_as_json_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        status, reply = use(body=ASK | {"messages": [{"role": "user", "content": "break"}]})
    assert (status, reply["error"]["type"]) == (500, "server_error")
    assert [r.getMessage() for r in caplog.records] == [
        "POST /v1/chat/completions failed: KeyError"
    ]


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    ],
    ids=["no-http", "version", "length", "header"],
)
def test_what_is_not_http_gets_json_and_no_traceback(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        head, _, body = raw(sent, ends=False).partition(b"\r\n\r\n")
    assert head.split()[1].startswith(b"4")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert caplog.records == []


def test_a_body_shorter_than_it_says_is_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    with caplog.at_level(logging.INFO):
        got = raw(head + b'{"model":', ends=True)
    assert got == b"" or got.startswith(b"HTTP/1.1 400")
    assert caplog.records == []


def test_names_of_stages_are_not_kept_for_ever() -> None:
    async def run() -> Any:
        app = make_app([ModelCard("a/b")], complete)
        async with listening(app) as url, aiohttp.ClientSession() as session:
            for number in range(80):
                stage = {STAGE_HEADER: "x" * 200 if number == 0 else f"stage-{number}"}
                async with session.post(f"{url}/chat/completions", json=ASK, headers=stage) as r:
                    assert r.status == 200
            async with session.get(url.removesuffix("/v1") + "/stats") as response:
                return await response.json()

    stats = asyncio.run(run())
    assert stats["requests"] == 80
    assert len(stats["by_stage"]) == 64
    assert stats["by_stage"]["(others)"] == 17
