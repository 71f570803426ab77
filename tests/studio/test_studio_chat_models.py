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
from feldspar.studio.chat_models import ChatModels, _Model

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
        async with TestServer(app) as server, ChatModels() as models:
            url = str(server.make_url("/v1"))
            models._models[RUN, "taught"] = _Model(url, "demo", ExitStack(), [0.0])
            talk = [Message(role="user", content="Hi")]
            return "".join([piece async for piece in models.answer(RUN, "taught", talk)])

    return asyncio.run(ask())


def test_a_model_of_little_room_is_asked_for_an_answer_that_fits() -> None:
    assert said(most=1000) == "300 tokens"
    assert said(most=120) == "120 tokens"


def test_a_question_that_does_not_fit_is_said() -> None:
    with pytest.raises(RunError, match=r"refused the question: .*does not fit"):
        said(most=0)
