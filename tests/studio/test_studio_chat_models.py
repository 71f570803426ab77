"""The studio's chat: what it asks of a model's server."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from feldspar.errors import RunError
from feldspar.records import Message
from feldspar.studio.chat_models import ChatModels, Served, Who

RUN = Path("runs/demo")


def said(most: int) -> str:
    """By a model with room for `most` tokens of answer, to which a page's question is put."""

    async def reply(request: web.Request) -> web.Response:
        wanted = (await request.json()).get("max_tokens", most)
        if wanted > most or not most:
            error = {"message": "does not fit", "code": "context_length_exceeded"}
            return web.json_response({"error": error}, status=400)
        event = {"choices": [{"delta": {"content": f"{wanted} tokens"}}]}
        return web.Response(text=f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n")

    async def ask() -> str:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", reply)
        async with TestServer(app) as server, Starting() as models:
            models.url = str(server.make_url("/v1"))
            return await answer(models, "taught")

    return asyncio.run(ask())


class Starting(ChatModels):
    """Models are there once so many of them have been asked for, or never."""

    def __init__(self, num_awaited: int = 1, *, is_broken: bool = False) -> None:
        super().__init__()
        self.url = ""
        self.num_started = 0
        self.num_ended = 0
        self._num_awaited, self._is_broken = num_awaited, is_broken
        self._all_started = asyncio.Event()

    async def start(self, run_path: Path, who: Who) -> Served:
        self.num_started += 1
        if self._is_broken:
            raise RunError("the model's server ended")
        if self.num_started >= self._num_awaited:
            self._all_started.set()
        await self._all_started.wait()
        stack = ExitStack()
        stack.callback(self._end)
        return Served(self.url, f"{run_path.name} {who}", stack)

    def _end(self) -> None:
        self.num_ended += 1


async def answer(models: ChatModels, who: Who, run: Path = RUN) -> str:
    talk = [Message(role="user", content="Hi")]
    return "".join([piece async for piece in models.answer(run, who, talk)])


def served_app() -> web.Application:
    async def reply(request: web.Request) -> web.Response:
        event = {"choices": [{"delta": {"content": (await request.json())["model"]}}]}
        return web.Response(text=f"data: {json.dumps(event)}\n\n")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", reply)
    return app


def test_a_model_of_little_room_is_asked_for_an_answer_that_fits() -> None:
    assert said(most=1000) == "300 tokens"
    assert said(most=120) == "120 tokens"


def test_a_question_that_does_not_fit_is_said() -> None:
    with pytest.raises(RunError, match=r"refused the question: .*does not fit"):
        said(most=0)


def test_two_models_that_are_asked_at_once_start_beside_each_other() -> None:
    async def ask() -> None:
        async with TestServer(served_app()) as server, Starting(num_awaited=2) as models:
            models.url = str(server.make_url("/v1"))
            both = asyncio.gather(answer(models, "base"), answer(models, "taught"))
            assert await asyncio.wait_for(both, 10) == ["demo base", "demo taught"]
            assert await answer(models, "base") == "demo base"
            assert models.num_started == 2
        assert models.num_ended == 2

    asyncio.run(ask())


def test_a_model_whose_server_has_ended_is_started_again() -> None:
    async def ask() -> None:
        async with Starting() as models:
            async with TestServer(served_app()) as server:
                models.url = str(server.make_url("/v1"))
                assert await answer(models, "base") == "demo base"
            with pytest.raises(RunError, match="has ended; ask again"):
                await answer(models, "base")
            assert models.num_ended == 1
            async with TestServer(served_app()) as server:
                models.url = str(server.make_url("/v1"))
                assert await answer(models, "base") == "demo base"
            assert models.num_started == 2

    asyncio.run(ask())


def test_a_model_starts_on_when_who_asked_has_left() -> None:
    async def ask() -> None:
        async with TestServer(served_app()) as server, Starting(num_awaited=2) as models:
            models.url = str(server.make_url("/v1"))
            left = asyncio.create_task(answer(models, "base"))
            while not models.num_started:
                await asyncio.sleep(0)
            left.cancel()
            assert await asyncio.wait_for(answer(models, "taught"), 10) == "demo taught"
            assert await answer(models, "base") == "demo base"
            assert models.num_started == 2

    asyncio.run(ask())


def test_a_third_model_takes_the_place_of_the_one_asked_longest_ago() -> None:
    async def ask() -> None:
        async with TestServer(served_app()) as server, Starting() as models:
            models.url = str(server.make_url("/v1"))
            for run in ("a", "b", "a", "c"):
                assert await answer(models, "base", Path(run)) == f"{run} base"
            assert (models.num_started, models.num_ended) == (3, 1)
            assert await answer(models, "base", Path("a")) == "a base"
            assert models.num_started == 3

    asyncio.run(ask())


def test_a_model_that_does_not_start_is_tried_again_with_the_next_question() -> None:
    async def ask() -> None:
        async with Starting(is_broken=True) as models:
            for number in (1, 2):
                with pytest.raises(RunError, match="server ended"):
                    await answer(models, "base")
                assert models.num_started == number

    asyncio.run(ask())
