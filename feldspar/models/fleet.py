"""The copies of one command: watched, replaced where they end, and asked as one pool.

A thread looks at each copy several times a second. One that answers joins the pool that an endpoint
asks; one that ends or drains leaves it, so that only calls in flight on it are asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from feldspar.endpoint.endpoint import Access
from feldspar.endpoint.faults import Fault, NoAnswers, secret_in, without_secret
from feldspar.endpoint.models_list import Listing, list_models
from feldspar.endpoint.replicas import Replica, Replicas
from feldspar.endpoint.transport import CONNECT_SECONDS, Transport
from feldspar.models.local_server import LocalEngine
from feldspar.models.served import opening_fault
from feldspar.models.server import Server, ServerEngine, Start

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
ENDING_SECONDS = 2.0
"""For a server that hung up to be seen ending."""
MAX_USELESS_STARTS = 3
"""In a row, of one copy, that ended before they had answered anything; then it is given up."""
_ENDED = "ended before it had answered all"


class _Slot:
    """One of the wanted copies, and the server that is it at present."""

    def __init__(self, number: int, server: Server) -> None:
        self.number, self.server = number, server
        self.entry: Replica | None = None
        """Its place in the pool, while it is up."""
        self.looked_at = float("-inf")
        self.num_useless = 0
        self.is_given_up = False
        self.fault = "no answer yet"


class Fleet:
    """All copies of one start. `close` ends them."""

    def __init__(
        self, start: Start, engine: ServerEngine, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` tells the seconds of servers' `placed_at`, and those of the loop."""
        self.start = start
        self.pool = Replicas([], clock)
        self._clock = clock
        self._engine = engine
        self._slots: list[_Slot] = []
        self._leaving: list[tuple[Server, Replica]] = []
        self._name: str | None = None
        self._failure: BaseException | None = None
        self._ended_at = float("-inf")
        self._placed_at = self._clock()
        """When one last was up or had a place, or the first was asked for."""
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            for number in range(start.num_replicas):
                self._slots.append(_Slot(number, engine.launch(start, number)))
        except BaseException:
            self.close()
            raise

    @property
    def servers(self) -> list[Server]:
        """In order of their replica."""
        return [slot.server for slot in self._slots]

    @property
    def num_up(self) -> int:
        return len(self.pool.all)

    async def wait(self, access: Access) -> str:
        """Watch from here on, and wait until calls can begin: with the first copy that is up where
        copies are replaced, else with all. Gives the model's name there. Raises NoAnswers."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._watch_apart, args=(access,), name="fleet", daemon=True
            )
            self._thread.start()
        return await self.first_up()

    async def first_up(self) -> str:
        """Wait until calls can begin, as `wait`, while `watch` runs somewhere."""
        while self._name is None or self.num_up < self._num_to_begin:
            self._raise_failure()
            await asyncio.sleep(POLL_SECONDS / 4)
        return self._name

    @property
    def _num_to_begin(self) -> int:
        num_hoped = sum(not slot.is_given_up for slot in self._slots)
        return 1 if self._engine.is_replaced else max(1, num_hoped)

    async def check(self) -> None:
        """Return when there is a server to ask, and what ended before the call is out of the pool.
        Raises NoAnswers where there will be none."""
        asked = self._clock()
        while True:
            self._raise_failure()
            is_seen = all(s.looked_at > asked for s in self._slots if s.entry is not None)
            has_ended = self._ended_at > asked or self._clock() > asked + ENDING_SECONDS
            if self.num_up and is_seen and (self.num_up > 1 or has_ended):
                return
            await asyncio.sleep(POLL_SECONDS / 4)

    def close(self) -> None:
        self._is_closing.set()
        if self._thread is not None:
            self._thread.join()
        servers = [*self.servers, *(server for server, _ in self._leaving)]
        for server in servers:
            server.let_go()
        for server in servers:
            server.wait()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _watch_apart(self, access: Access) -> None:
        try:
            asyncio.run(self._watch_over_http(access))
        except BaseException as error:
            # Whoever waits or calls raises it.
            self._failure = error
            if not isinstance(error, NoAnswers):
                log.exception("the watch over servers has ended")

    async def _watch_over_http(self, access: Access) -> None:
        async with Transport(CONNECT_SECONDS, is_proxied=access.is_proxied) as transport:
            await self.watch(access, transport)

    async def watch(self, access: Access, transport: Transport) -> None:
        """Look after the copies until `close`, asking them whether they are up by `transport`.
        Raises NoAnswers where there will be nobody to ask."""
        tending = [
            asyncio.ensure_future(self._tend(slot, transport, access)) for slot in self._slots
        ]
        try:
            while not self._is_closing.is_set():
                await self._let_leave()
                self._check_room()
                done, _ = await asyncio.wait(
                    tending, timeout=POLL_SECONDS, return_when=asyncio.FIRST_EXCEPTION
                )
                for one in done:
                    one.result()
                if len(done) == len(tending):
                    return
        finally:
            for one in tending:
                one.cancel()
            await asyncio.gather(*tending, return_exceptions=True)

    async def _tend(self, slot: _Slot, transport: Transport, access: Access) -> None:
        while not slot.is_given_up:
            began = self._clock()
            slot.server.look()
            if slot.server.status is not None:
                await self._end(slot)
            elif slot.entry is None:
                await self._try_out(slot, transport, access)
            elif slot.server.is_draining:
                self._drain(slot)
            slot.looked_at = began
            await asyncio.sleep(POLL_SECONDS)

    async def _try_out(self, slot: _Slot, transport: Transport, access: Access) -> None:
        """Whether it answers by now; then it joins the pool."""
        server = slot.server
        if server.url is None or server.placed_at is None:
            return
        listing = await list_models(transport, server.url, access.headers)
        if not isinstance(listing, Fault):
            self._name = self._name_of(server, listing)
            slot.entry = self.pool.add(server.url)
            return
        fault = without_secret(listing, secret_in(access.key_variable))
        if fault.kind == "stop":
            raise opening_fault(server.url, fault, access)
        slot.fault = fault.reason
        if self._clock() > server.placed_at + self.start.seconds:
            await self._end(slot, f"did not come up in {self.start.seconds:g} s ({fault.reason})")

    async def _end(self, slot: _Slot, fault: str = "") -> None:
        """It has ended, or is of no use: another takes its place, or the others go on."""
        server, entry = slot.server, slot.entry
        if not fault:
            what = "did not come up" if entry is None else _ENDED
            fault = f"{what} (status {server.status})"
        error = self.start.error(server.log_path, fault)
        slot.num_useless = 0 if entry is not None and entry.has_answered else slot.num_useless + 1
        if entry is not None:
            self.pool.lose(entry)
        self._leave_pool(slot)
        if self._engine.is_replaced and slot.num_useless < MAX_USELESS_STARTS:
            who = f"copy {slot.number + 1} of {len(self._slots)}"
            log.warning("%s %s; it is started again", who, error.reason)
            await _finish(server)
            slot.server = self._engine.launch(self.start, slot.number)
            return
        slot.is_given_up = True
        was_begun = self._engine.is_replaced or entry is not None
        if not was_begun or all(slot.is_given_up for slot in self._slots):
            raise error
        log.warning("one server of %d %s; the others go on", len(self._slots), error.reason)
        # What it held is free for those that wait for room.
        await _finish(server)

    def _drain(self, slot: _Slot) -> None:
        """Another takes its place; it ends when its last call is answered."""
        assert slot.entry is not None
        log.info("copy %d of %d leaves its node", slot.number + 1, len(self._slots))
        self._leaving.append((slot.server, slot.entry))
        self._leave_pool(slot)
        slot.server = self._engine.launch(self.start, slot.number)

    def _leave_pool(self, slot: _Slot) -> None:
        if slot.entry is not None:
            self.pool.remove(slot.entry)
        slot.entry = None
        self._ended_at = self._clock()

    async def _let_leave(self) -> None:
        for leaving in list(self._leaving):
            server, entry = leaving
            server.look()
            has_ended = server.status is not None
            if has_ended:
                self.pool.lose(entry)
            if has_ended or not entry.num_in_flight:
                await _finish(server)
                self._leaving.remove(leaving)

    def _check_room(self) -> None:
        """Raises NoAnswers where nobody has been up, or has had a place, for too long."""
        hoped = [slot.server for slot in self._slots if not slot.is_given_up]
        if self.num_up or any(server.placed_at is not None for server in hoped):
            self._placed_at = self._clock()
        elif self._clock() > self._placed_at + self.start.seconds:
            raise NoAnswers(
                f"that was to be started for {self.start.model or 'the recipe'}",
                "ended",
                f"found no room in {self.start.seconds:g} s ({self._engine.room()})",
                cure="lower `gpus_each` or `replicas`, add nodes, or raise `start_seconds`, then "
                "run again: every answer so far is kept",
            )

    def _name_of(self, server: Server, listing: Listing) -> str:
        wanted = server.fill(self.start.called or "{model}")
        for card in listing.cards.values():
            # vLLM tells a model's folder as its root, whatever it is called.
            if wanted in (card.id, card.root):
                return card.id
        if self.start.called is None:
            if len(listing.cards) == 1:
                return next(iter(listing.cards))
            if not listing.cards and wanted:
                return wanted
        raise self.start.error(
            server.log_path,
            f"has {', '.join(listing.cards) or 'no model'} and not {wanted}, so another model "
            "would answer",
        )


async def _finish(server: Server) -> None:
    server.let_go()
    await asyncio.to_thread(server.wait)


@contextmanager
def launching(start: Start) -> Iterator[Fleet]:
    """Start the command for each replica; they have ended after the block."""
    fleet = Fleet(start, engine_of(start))
    with contextlib.closing(fleet):
        yield fleet


def engine_of(start: Start) -> ServerEngine:
    """The one that the recipe names. Raises NoAnswers where it is not there."""
    if start.engine == "local":
        return LocalEngine()
    # Only here, for it loads Ray.
    from feldspar.models.ray_server import RayEngine

    return RayEngine()
