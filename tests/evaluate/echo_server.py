"""A small completions server for tests: a tiny student behind `/v1`, with or without log-probs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import torch
from aiohttp import web

from feldspar.serve.app import listening


class EchoServer:
    """Serves a Hugging Face model: `echo` tells the log-probabilities of a prompt's tokens."""

    def __init__(self, model: Any, tokenizer: Any, *, echoes: bool, completes: bool) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.echoes, self.completes = echoes, completes
        self.num_calls = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        if self.completes:
            app.router.add_post("/v1/completions", self.complete)
        return app

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "tiny", "object": "model"}]})

    async def complete(self, http: web.Request) -> web.Response:
        self.num_calls += 1
        body = await http.json()
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "logprobs": None}
        choice["text"] = self.write(body["prompt"], body["max_tokens"])
        if body.get("echo") and self.echoes:
            choice |= {"text": body["prompt"] + choice["text"], "logprobs": self.tell(body)}
        return web.json_response(
            {"id": "1", "object": "text_completion", "created": 0, "model": "tiny",
             "choices": [choice]}
        )  # fmt: skip

    async def chat(self, http: web.Request) -> web.Response:
        self.num_calls += 1
        body = await http.json()
        said = self.write(body["messages"][-1]["content"], body["max_tokens"])
        choice = {"index": 0, "message": {"role": "assistant", "content": said}}
        return web.json_response(
            {"id": "1", "object": "chat.completion", "created": 0, "model": "tiny",
             "choices": [choice | {"finish_reason": "stop"}]}
        )  # fmt: skip

    def tell(self, body: dict[str, Any]) -> dict[str, Any]:
        encoded = self.tokenizer(body["prompt"], return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], [start for start, _ in encoded["offset_mapping"]]
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids])).logits[0]
        log_probs = torch.log_softmax(logits.float(), dim=-1)
        told = [float(log_probs[i, ids[i + 1]]) for i in range(len(ids) - 1)]
        best = [{"x": float(log_probs[i].max())} for i in range(len(ids) - 1)]
        return {
            "tokens": self.tokenizer.convert_ids_to_tokens(ids),
            "token_logprobs": [None, *told],
            "text_offset": offsets,
            "top_logprobs": [None, *best],
        }

    def write(self, prompt: str, max_tokens: int) -> str:
        ids = self.tokenizer(prompt)["input_ids"][-200:]
        with torch.inference_mode():
            for _ in range(max_tokens):
                ids.append(int(self.model(torch.tensor([ids])).logits[0, -1].argmax()))
        return str(self.tokenizer.decode(ids[-max_tokens:]))


@contextmanager
def serving(server: EchoServer) -> Iterator[str]:
    """Serve in a thread while the block runs; gives the URL."""
    with in_thread(listening(server.app())) as url:
        yield url


@contextmanager
def in_thread(listening: AbstractAsyncContextManager[str]) -> Iterator[str]:
    """What listens does so in a loop and thread of its own while the block runs; gives its URL."""
    loop = asyncio.new_event_loop()
    ready, stop, urls = threading.Event(), asyncio.Event(), []

    async def serve() -> None:
        async with listening as url:
            urls.append(url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
