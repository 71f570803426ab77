"""The thread that computes a local model: requests join its engine between two steps.

Loads torch: imported where a model is loaded, never before.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch

from feldspar.endpoint.calls import ChatCall, PromptCall
from feldspar.endpoint.faults import Refused, one_line
from feldspar.records import Message
from feldspar.student.counter_rng import key_of
from feldspar.student.inference.engine import Engine, EngineRow, Request
from feldspar.student.model import Student

T = TypeVar("T")


class _Order:
    """What the thread is to do, and who waits for it. Made in the loop that waits."""

    def __init__(self, work: Callable[[], object] | Request) -> None:
        self.work = work
        self.rows: list[EngineRow] = []
        """Of a request: those that have ended."""
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self.loop.create_future()

    def settle(self, result: object) -> None:
        # A loop that was closed meanwhile has nobody left to tell.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle, result)

    def _settle(self, result: object) -> None:
        if self.done.done():
            return
        if isinstance(result, Exception):
            self.done.set_exception(result)
        else:
            self.done.set_result(result)


class LocalEngineThread:
    """Takes work from any loop; computes it in one thread until closed."""

    def __init__(self, student: Student) -> None:
        self.student = student
        self._engine = Engine(student)
        config = student.model.config.get_text_config()
        self._context = int(getattr(config, "max_position_embeddings", None) or 1 << 20)
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._drawn: dict[int, _Order] = {}
        """Requests in the engine, by their ids."""
        self._thread = threading.Thread(target=self._work, name="local-model", daemon=True)
        self._thread.start()

    def request(self, call: ChatCall | PromptCall) -> Request:
        """What the engine is asked. Raises Refused where the prompt does not fit."""
        ids = self._ids(call)
        room = min(self._context, self._engine.max_tokens) - len(ids)
        if room < 1:
            raise Refused(
                f"the prompt's {len(ids)} tokens do not fit into a context of {self._context}"
            )
        # Other prompts draw other numbers, under the same seed too.
        content = hashlib.sha256(repr(ids).encode()).hexdigest()
        num = call.num_choices if isinstance(call, PromptCall) else 1
        return Request(
            ids=ids,
            keys=[key_of("completion", call.seed or 0, content, draw) for draw in range(num)],
            max_new_tokens=min(call.max_tokens, room),
            temperature=call.temperature,
            top_p=call.top_p if isinstance(call, PromptCall) else 1.0,
            stop=call.stop,
        )

    async def draw(self, request: Request) -> list[EngineRow]:
        """All rows of a request, in the order of its keys."""
        order = _Order(request)
        self._orders.put(order)
        try:
            rows: list[EngineRow] = await order.done
        except asyncio.CancelledError:
            self._orders.put(_Order(lambda: self._engine.cancel(request)))
            raise
        return sorted(rows, key=lambda row: row.draw)

    async def run(self, work: Callable[[], T]) -> T:
        """Do something else with the model, between two steps."""
        order = _Order(work)
        self._orders.put(order)
        result: T = await order.done
        return result

    def close(self) -> None:
        self._orders.put(None)
        self._thread.join()

    def _ids(self, call: ChatCall | PromptCall) -> list[int]:
        if isinstance(call, ChatCall):
            messages = [Message(**message) for message in call.messages]  # type: ignore[arg-type]
            return self.student.template.render_prompt(messages)
        if isinstance(call.prompt, str):
            return list(self.student.tokenizer(call.prompt).input_ids)
        return list(call.prompt)

    def _work(self) -> None:
        with torch.inference_mode(), self.student.computing():
            while True:
                is_busy = self._engine.is_busy
                order: _Order | None = None
                with suppress(queue.Empty):
                    order = self._orders.get(block=not is_busy)
                    if order is None:
                        return
                fault: Exception | None = None
                try:
                    self._obey(order)
                except (RuntimeError, ValueError) as error:
                    fault = Refused(one_line(str(error)) or type(error).__name__)
                # Most of all, memory that ran out: once the error has let go of it, go on.
                if fault is not None:
                    self._fail(fault, order)

    def _obey(self, order: _Order | None) -> None:
        if order is None:
            for row in self._engine.step():
                if row.finish is not None:
                    self._take(row)
        elif isinstance(order.work, Request):
            self._drawn[id(order.work)] = order
            self._engine.add(order.work)
        else:
            order.settle(order.work())

    def _take(self, row: EngineRow) -> None:
        order = self._drawn[id(row.request)]
        order.rows.append(row)
        if len(order.rows) == len(row.request.keys):
            del self._drawn[id(row.request)]
            order.settle(order.rows)

    def _fail(self, fault: Exception, order: _Order | None) -> None:
        failed = [*self._drawn.values(), *([] if order is None else [order])]
        self._drawn.clear()
        self._engine = Engine(self.student)
        for one in failed:
            one.settle(fault)
