"""The chat page: one question to the base, to the taught model, and to the taught model with
passages shown; and what taught an answer, or what was shown for it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Literal, get_args

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feldspar.errors import RunError
from feldspar.records import Message, Sample, user_turn
from feldspar.stored import what_is_wrong
from feldspar.studio.chat_models import ChatModels
from feldspar.studio.run_cache import OpenRun, RunCache
from feldspar.studio.shown import ShownPage
from feldspar.views.links import studio_link
from feldspar.views.pages import Pages
from feldspar.views.passages import find_passages, shown_as_context

Way = Literal["base", "taught", "retrieved"]
"""Who answers: `retrieved` is the taught model with passages before the question."""
NUM_NEAREST = 3
NUM_PASSAGES = 3
MAX_LETTERS = 20_000
MAX_TURNS = 200


class ChatTurn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant", "system"]
    content: str = Field(max_length=MAX_LETTERS)


class ChatQuestion(BaseModel):
    """The body of a question: the whole conversation so far."""

    model_config = ConfigDict(extra="forbid")
    messages: list[ChatTurn] = Field(min_length=1, max_length=MAX_TURNS)


class WhyQuestion(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=2 * MAX_LETTERS)


class ChatPages:
    """Handlers of one app."""

    def __init__(self, runs: RunCache, models: ChatModels, *, read_only: bool) -> None:
        self._runs, self._models, self._read_only = runs, models, read_only

    def page(self, request: web.Request) -> ShownPage:
        run = self._run(request)
        return ShownPage("Chat", _views(run).chat(read_only=self._read_only))

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Plain text, piece by piece. Errors before the first piece: 403 read-only, 422 a wrong
        body, 502 a model that does not start."""
        who = request.match_info["who"]
        if self._read_only:
            return web.Response(status=403, text="this studio only reads")
        if who not in get_args(Way):
            raise web.HTTPNotFound(reason=f"nobody is called {who!r}")
        run = self._run(request)
        try:
            question = ChatQuestion.model_validate_json(await request.read())
        except ValidationError as error:
            return web.Response(status=422, text=error.errors()[0]["msg"])
        messages = [Message(role=m.role, content=m.content) for m in question.messages]
        if who == "retrieved":
            messages = await asyncio.to_thread(_with_passages, run, messages)
        response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
        try:
            async with aclosing(
                self._models.answer(run.files.path, "base" if who == "base" else "taught", messages)
            ) as pieces:
                async for piece in pieces:
                    if not response.prepared:
                        await response.prepare(request)
                    await response.write(piece.encode())
        except RunError as error:
            if not response.prepared:
                return web.Response(status=502, text=str(error))
            await response.write(f"\n({error})".encode())
        if not response.prepared:
            await response.prepare(request)
        return response

    async def why(self, request: web.Request) -> web.Response:
        """The training samples likest what was said, as HTML."""
        run = self._run(request)
        try:
            text = WhyQuestion.model_validate_json(await request.read()).text
        except ValueError as error:
            return web.Response(status=422, text=what_is_wrong(error))
        nearest = await asyncio.to_thread(_nearest, run, text)
        return web.Response(text=str(_views(run).why(nearest)), content_type="text/html")

    async def passages(self, request: web.Request) -> web.Response:
        """The passages that a question is shown with, as HTML."""
        run = self._run(request)
        try:
            text = WhyQuestion.model_validate_json(await request.read()).text
        except ValueError as error:
            return web.Response(status=422, text=what_is_wrong(error))
        found = await asyncio.to_thread(find_passages, run.files.leaves, text, NUM_PASSAGES)
        return web.Response(text=str(_views(run).passages(found)), content_type="text/html")

    def _run(self, request: web.Request) -> OpenRun:
        return self._runs.open(request.match_info["run"])


def _with_passages(run: OpenRun, messages: Sequence[Message]) -> list[Message]:
    """The last question with what retrieval finds for it, in the form of the retrieval exams."""
    *before, last = messages
    found = find_passages(run.files.leaves, last.content, NUM_PASSAGES)
    context = shown_as_context(found) or None
    return [*before, Message(role=last.role, content=user_turn(last.content, context))]


def _nearest(run: OpenRun, text: str) -> list[tuple[Sample, float]]:
    index = run.index()
    return index.nearest(text, NUM_NEAREST) if index else []


def _views(run: OpenRun) -> Pages:
    return Pages(run.files, studio_link(run.files.name), is_live=True)
