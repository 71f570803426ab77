"""A thread that owns a model's engine: requests from any event loop join it between two steps.

    thread = EngineThread(student)
    rows = await thread.draw(request)                  # when all of them have ended
    async for news in thread.watch([request], read):   # what `read` makes of a row as it grows
        ...
    thread.close()

Loads torch: imported where a model is loaded, never before.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import queue
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, NamedTuple, TypeVar

import torch

from feldspar.endpoint.calls import ChatCall, PromptCall
from feldspar.endpoint.faults import Refused, one_line
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.records import Message
from feldspar.student.counter_rng import key_of
from feldspar.student.inference.engine import Engine, EngineRow, Request
from feldspar.student.lm_head import score_targets
from feldspar.student.model import Student

log = logging.getLogger(__name__)

T = TypeVar("T")


class _News(NamedTuple):
    """What the thread reports to one that watches: readings of rows, or what ended them."""

    readings: list[Any]
    num_ended: int
    fault: Refused | None = None


class _Watcher:
    """Requests in the engine, and where what is read of their rows goes; made where it waits."""

    def __init__(
        self, requests: Sequence[Request], read: Callable[[EngineRow], object | None]
    ) -> None:
        self.requests = requests
        self.read = read
        self.loop = asyncio.get_running_loop()
        self.inbox: asyncio.Queue[_News] = asyncio.Queue()


class EngineThread:
    """Computes for any number of loops until it is closed."""

    def __init__(self, student: Student) -> None:
        self.student = student
        self._engine = Engine(student)
        config = student.model.config.get_text_config()
        self.context_tokens = int(getattr(config, "max_position_embeddings", None) or 1 << 20)
        """Longest text that the model can see, prompt and answer together."""
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._watchers: dict[int, _Watcher] = {}
        """Who waits for each request in the engine, by the request's id."""
        self._thread = threading.Thread(target=self._work, name="feldspar-engine", daemon=True)
        self._thread.start()

    @property
    def max_tokens(self) -> int:
        """For which there is memory, all requests under way together."""
        return self._engine.max_tokens

    @property
    def num_rows(self) -> int:
        """Answers being computed."""
        return self._engine.num_rows

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    async def draw(self, request: Request) -> list[EngineRow]:
        """All rows of a request, in the order of its keys. Raises Refused."""
        watching = self.watch([request], lambda row: row if row.finish else None)
        async with aclosing(watching) as ended:
            rows = [row async for row in ended]
        return sorted(rows, key=lambda row: row.draw)

    async def watch(
        self, requests: Sequence[Request], read: Callable[[EngineRow], T | None]
    ) -> AsyncGenerator[T]:
        """Draw all answers; gives what `read` makes of a row, where that is not None.

        `read` is called in the thread, after each step of a watched request and at the end of any.
        Closing the generator ends the work. Raises Refused where it cannot be computed.
        """
        watcher = _Watcher(requests, read)
        self._orders.put(lambda: self._begin(watcher))
        num_left = sum(len(request.keys) for request in requests)
        try:
            while num_left:
                news = await watcher.inbox.get()
                if news.fault is not None:
                    num_left = 0
                    raise news.fault
                num_left -= news.num_ended
                for reading in news.readings:
                    yield reading
        finally:
            if num_left:
                self._orders.put(lambda: self._cancel(watcher))

    async def run(self, work: Callable[[], T]) -> T:
        """Do something else with the model, between two steps; not begun where nobody waits any
        more. Raises Refused where it cannot be computed."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def order() -> None:
            if done.cancelled():
                return
            result: T | Refused
            try:
                result = work()
            except Exception as error:
                result = _fault(error)
            # A loop that was closed meanwhile has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, done, result)

        self._orders.put(order)
        return await done

    def prompt_tokens(self, prompt: str | Sequence[int]) -> list[PromptToken]:
        """How likely each token from the second on is. To be called by `run`."""
        ids, starts = list(prompt) if not isinstance(prompt, str) else [], None
        if isinstance(prompt, str):
            encoded = self.student.tokenizer(prompt, return_offsets_mapping=True)
            ids, starts = list(encoded.input_ids), [start for start, _ in encoded.offset_mapping]
        if len(ids) > self.context_tokens:
            raise Refused(
                f"the prompt's {len(ids)} tokens do not fit into a context of {self.context_tokens}"
            )
        if len(ids) < 2:
            return []
        ids_BT = torch.tensor([ids], device=self.student.device)
        hidden_NH = self.student.hidden_states(ids_BT)[0, :-1]
        scores = score_targets(self.student.head, hidden_NH, ids_BT[0, 1:])
        found = zip(scores.log_probs_N.tolist(), scores.is_best_N.tolist(), strict=True)
        return [
            PromptToken(log_prob, None, starts[place] if starts else None, bool(is_best))
            for place, (log_prob, is_best) in enumerate(found, start=1)
        ]

    def close(self) -> None:
        self._orders.put(None)
        self._thread.join()

    def _work(self) -> None:
        with torch.inference_mode(), self.student.computing():
            while True:
                order: Callable[[], None] | None = self._step
                with suppress(queue.Empty):
                    order = self._orders.get(block=not self._engine.is_busy)
                if order is None:
                    return
                fault: Refused | None = None
                try:
                    order()
                except Exception as error:
                    fault = _fault(error)
                # Most of all, memory that ran out: once the error has let go of it, go on.
                if fault is not None:
                    self._fail(fault)

    def _begin(self, watcher: _Watcher) -> None:
        for request in watcher.requests:
            self._watchers[id(request)] = watcher
            self._engine.add(request)

    def _cancel(self, watcher: _Watcher) -> None:
        for request in watcher.requests:
            if self._watchers.pop(id(request), None) is not None:
                self._engine.cancel(request)

    def _step(self) -> None:
        readings: dict[_Watcher, list[Any]] = {}
        num_ended: Counter[_Watcher] = Counter()
        for row in self._engine.step():
            if row.finish is None and not row.request.is_watched:
                continue
            watcher = self._watchers[id(row.request)]
            num_ended[watcher] += row.finish is not None
            reading = watcher.read(row)
            readings.setdefault(watcher, []).extend([] if reading is None else [reading])
        under_way = {id(request) for request in self._engine.requests}
        self._watchers = {key: w for key, w in self._watchers.items() if key in under_way}
        _post({watcher: _News(found, num_ended[watcher]) for watcher, found in readings.items()})

    def _fail(self, fault: Refused) -> None:
        failed = set(self._watchers.values())
        self._watchers.clear()
        self._engine = Engine(self.student)
        _post({watcher: _News([], 0, fault) for watcher in failed})


def request_of(call: ChatCall | PromptCall, thread: EngineThread) -> Request:
    """What the engine computes for a call. Raises Refused where the prompt does not fit."""
    ids = _ids(call, thread.student)
    room = min(thread.context_tokens, thread.max_tokens) - len(ids)
    if room < 1:
        raise Refused(
            f"the prompt's {len(ids)} tokens do not fit into a context of {thread.context_tokens}"
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


def prompt_tokens_of(
    student: Student, prompt: str | Sequence[int], context_tokens: int
) -> list[PromptToken]:
    """How likely each token from the second on is; to be called by `EngineThread.run`.

    Raises Refused where the prompt is longer than `context_tokens`.
    """
    ids, starts = list(prompt) if not isinstance(prompt, str) else [], None
    if isinstance(prompt, str):
        encoded = student.tokenizer(prompt, return_offsets_mapping=True)
        ids, starts = list(encoded.input_ids), [start for start, _ in encoded.offset_mapping]
    if len(ids) > context_tokens:
        raise Refused(
            f"the prompt's {len(ids)} tokens do not fit into a context of {context_tokens}"
        )
    if len(ids) < 2:
        return []
    ids_BT = torch.tensor([ids], device=student.device)
    hidden_NH = student.hidden_states(ids_BT)[0, :-1]
    scores = score_targets(student.head, hidden_NH, ids_BT[0, 1:])
    found = zip(scores.log_probs_N.tolist(), scores.is_best_N.tolist(), strict=True)
    return [
        PromptToken(log_prob, None, starts[place] if starts else None, bool(is_best))
        for place, (log_prob, is_best) in enumerate(found, start=1)
    ]


def _ids(call: ChatCall | PromptCall, student: Student) -> list[int]:
    if isinstance(call, ChatCall):
        messages = [Message(**message) for message in call.messages]  # type: ignore[arg-type]
        return student.template.render_prompt(messages)
    if isinstance(call.prompt, str):
        return list(student.tokenizer(call.prompt).input_ids)
    return list(call.prompt)


def _fault(error: Exception) -> Refused:
    if isinstance(error, Refused):
        return error
    log.debug("the model's thread", exc_info=error)
    return Refused(one_line(str(error)) or type(error).__name__)


def _post(news: dict[_Watcher, _News]) -> None:
    """One message to each loop that waits."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Watcher, _News]]] = {}
    for watcher, item in news.items():
        by_loop.setdefault(watcher.loop, []).append((watcher, item))
    for loop, items in by_loop.items():
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_deliver, items)


def _deliver(items: list[tuple[_Watcher, _News]]) -> None:
    for watcher, news in items:
        watcher.inbox.put_nowait(news)


def _settle(done: asyncio.Future[T], result: T | Refused) -> None:
    if done.done():
        return
    if isinstance(result, Refused):
        done.set_exception(result)
    else:
        done.set_result(result)
