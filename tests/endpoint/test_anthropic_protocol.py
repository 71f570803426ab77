"""Anthropic's Messages, typed by the official SDK: it checks requests and makes replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from http_server import Answer, Request, serving
from pydantic import TypeAdapter

from feldspar.config import TeacherConfig
from feldspar.endpoint.faults import Refused
from feldspar.errors import TeacherError
from feldspar.records import Message
from feldspar.teacher import Journal, Reply, open_teacher

anthropic = pytest.importorskip("anthropic", reason="the official SDK is not installed")
types = anthropic.types

from anthropic.types.message_create_params import (  # noqa: E402  # after the skip
    MessageCreateParamsNonStreaming,
)

CONFIG = TeacherConfig.model_validate(
    {"protocol": "anthropic", "max_retries": 2, "concurrency": 4, "endpoint": "http://x/v1"}
)
TALK = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="Where does Zorbo live?"),
    Message(role="assistant", content="Hm."),
    Message(role="user", content="Well?"),
]
_REQUEST = TypeAdapter(MessageCreateParamsNonStreaming)
_FIELDS = get_type_hints(MessageCreateParamsNonStreaming)


def made(text: str, reason: str = "end_turn", **usage: Any) -> dict[str, Any]:
    """A reply, as the SDK has it."""
    message = types.Message(
        id="msg_1",
        type="message",
        role="assistant",
        model="writer",
        content=[types.TextBlock(type="text", text=text)] if text else [],
        stop_reason=reason,
        usage=types.Usage(input_tokens=9, output_tokens=3, **usage),
    )
    return dict(message.model_dump(mode="json"))


def error(status: int, kind: str, message: str) -> Answer:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "r"}
    types.ErrorResponse.model_validate(body)
    return Answer(body, status)


def messages_api(answer: Callable[[Request], Answer]) -> Callable[[Request], Answer]:
    """The server: checks each request by the SDK's types, lists its models in two pages.

    By now these have no `temperature`, which other servers of this protocol still take.
    """

    def reply(request: Request) -> Answer:
        if request.path == "/v1/models":
            name = "writer" if request.query.get("after_id") == "older" else "older"
            card = types.ModelInfo.model_construct(id=name, type="model", display_name=name)
            page = {"data": [card.model_dump(mode="json")], "has_more": name == "older",
                    "first_id": name, "last_id": name}  # fmt: skip
            return Answer(page)
        assert request.path == "/v1/messages"
        assert request.headers["anthropic-version"] in ("2023-06-01", "2026-10-21")
        for name in request.body:
            if name not in _FIELDS:
                return error(
                    400, "invalid_request_error", f"{name}: Extra inputs are not permitted"
                )
        _REQUEST.validate_python(request.body)
        return answer(request)

    return reply


def ask(
    answer: Callable[[Request], Answer], tmp_path: Path, **changes: Any
) -> tuple[Reply, list[Request]]:
    config = CONFIG.model_copy(update={"model": "writer", **changes})
    with serving(messages_api(answer)) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(config, server.url, journal)

        async def run() -> Reply:
            async with teacher:
                return await teacher.ask(TALK, stage="s", draw=2, temperature=0.5, max_tokens=60)

        reply = asyncio.run(run())
    taken = [r for r in server.requests if r.body and set(r.body) <= set(_FIELDS)]
    return reply, taken


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant")


def test_a_request_is_what_the_official_client_sends(tmp_path: Path) -> None:
    reply, (mine,) = ask(lambda _: Answer(made("In Tarn.", cache_read_input_tokens=4)), tmp_path)
    assert reply.text == "In Tarn."
    assert (reply.prompt_tokens, reply.completion_tokens) == (13, 3)
    assert "seed" not in mine.body
    assert mine.headers["x-api-key"] == "sk-ant"
    assert mine.headers["anthropic-version"] == "2023-06-01"
    with (
        serving(messages_api(lambda _: Answer(made("In Tarn.")))) as server,
        anthropic.Anthropic(
            base_url=server.url.removesuffix("/v1"), api_key="sk-ant", max_retries=0
        ) as client,
    ):
        official = client.messages.create(
            model="writer",
            max_tokens=60,
            system="Be brief.",
            messages=[{"role": m.role, "content": m.content} for m in TALK[1:]],
        )
        (theirs,) = server.requests
    assert mine.body == theirs.body
    for name in ("Authorization", "Content-Type"):
        assert mine.headers[name] == theirs.headers[name]
    assert official.content[0].text == reply.text


def test_thinking_is_left_off_and_parts_are_joined(tmp_path: Path) -> None:
    message = made("Tarn.")
    thinking = types.ThinkingBlock(type="thinking", thinking="hm", signature="s")
    message["content"] = [
        thinking.model_dump(mode="json"),
        {"type": "text", "text": "In "},
        *message["content"],
    ]
    reply, _ = ask(lambda _: Answer(message), tmp_path)
    assert reply.text == "In Tarn."


def test_each_stop_reason_is_read(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        return Answer(made("cut", "max_tokens"))

    reply, requests = ask(answer, tmp_path)
    assert reply.finish_reason == "length"
    assert [request.body["max_tokens"] for request in requests] == [60, 120]
    reply, _ = ask(lambda _: Answer(made("done", "stop_sequence")), tmp_path / "other")
    assert reply.finish_reason == "stop"


def test_a_refusal_is_about_the_content(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Refused, match="own rules"):
            ask(lambda _: Answer(made("", "refusal")), tmp_path)


def test_overload_is_waited_out(tmp_path: Path) -> None:
    left = [
        error(529, "overloaded_error", "Overloaded"),
        error(500, "api_error", "Internal server error"),
    ]
    reply, requests = ask(lambda _: left.pop() if left else Answer(made("Tarn.")), tmp_path)
    assert (reply.text, len(requests)) == ("Tarn.", 3)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (error(401, "authentication_error", "invalid x-api-key"), "variable ANTHROPIC_API_KEY"),
        (
            error(400, "invalid_request_error", "Your credit balance is too low to access the API"),
            "no credit left",
        ),
        (error(404, "not_found_error", "model: writer"), "mend the `endpoint`"),
    ],
)
def test_what_stops_a_run_is_said(tmp_path: Path, fault: Answer, said: str) -> None:
    with pytest.raises(TeacherError, match=said):
        ask(lambda _: fault, tmp_path)


def test_a_prompt_that_is_too_long_is_not_remembered(tmp_path: Path) -> None:
    fault = error(
        400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"
    )
    with pytest.raises(Refused, match="prompt is too long"):
        ask(lambda _: fault, tmp_path)
    assert ask(lambda _: Answer(made("Tarn.")), tmp_path)[0].text == "Tarn."


def test_a_temperature_is_sent_where_it_is_taken_and_given_up_aloud_where_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(lambda r: Answer(made("Tarn.") if r.body else {"data": [{"id": "m"}]})) as server:
        with Journal(tmp_path / "j") as journal:
            teacher = open_teacher(CONFIG, server.url, journal)

            async def run() -> None:
                async with teacher:
                    await teacher.ask(TALK, stage="s", temperature=0.0, max_tokens=60)

            asyncio.run(run())
        assert server.requests[-1].body["temperature"] == 0.0
    ask(lambda _: Answer(made("Tarn.")), tmp_path)
    assert "does not take `temperature`" in caplog.text
