from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable
from itertools import pairwise

from feldspar.endpoint.concurrency import (
    FIRST_LIMIT,
    Governor,
    Latency,
    Outcome,
    Ticket,
    latency_growth,
)


class FakeClock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


Serve = Callable[[int, random.Random], tuple[float, Outcome]]
"""Seconds and outcome of a call that meets so many in flight."""


def drive(governor: Governor, clock: FakeClock, serve: Serve, num_calls: int) -> list[int]:
    """Keep the governor saturated in simulated time; gives the limit after each call."""
    rng = random.Random(1)

    async def run() -> list[int]:
        limits: list[int] = []
        running: list[tuple[float, int, object, Outcome]] = []
        # A list: the order of a set is that of addresses, another in every process.
        waiting = [asyncio.create_task(governor.acquire("s")) for _ in range(600)]
        num_begun = 0
        for _ in range(num_calls):
            await asyncio.sleep(0)
            for task in [task for task in waiting if task.done()]:
                waiting.remove(task)
                seconds, outcome = serve(governor.num_in_flight, rng)
                num_begun += 1
                heapq.heappush(running, (clock.now + seconds, num_begun, task.result(), outcome))
                waiting.append(asyncio.create_task(governor.acquire("s")))
            clock.now, _, ticket, outcome = heapq.heappop(running)
            governor.release(ticket, outcome)
            limits.append(governor.limit)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return limits

    return asyncio.run(run())


def queueing(slots: int) -> Serve:
    return lambda load, rng: (0.4 * rng.lognormvariate(0, 0.6) * max(1, load / slots), "answered")


def test_it_finds_the_slots_of_a_server_that_queues() -> None:
    clock = FakeClock()
    limits = drive(Governor(0, 256, clock), clock, queueing(64), 4000)
    assert min(limits[1500:]) >= 50
    assert max(limits[1500:]) <= 200


def test_it_finds_the_limit_of_a_server_that_turns_calls_away() -> None:
    def serve(load: int, rng: random.Random) -> tuple[float, Outcome]:
        return (0.4, "answered") if load <= 40 else (0.01, "pushed back")

    clock = FakeClock()
    limits = drive(Governor(0, 256, clock), clock, serve, 4000)
    assert min(limits[1500:]) >= 20
    assert max(limits[1500:]) <= 64


def test_lone_faults_do_not_choke_it() -> None:
    def serve(load: int, rng: random.Random) -> tuple[float, Outcome]:
        seconds, _ = queueing(64)(load, rng)
        return seconds, "pushed back" if rng.random() < 0.02 else "answered"

    clock = FakeClock()
    assert min(drive(Governor(0, 256, clock), clock, serve, 4000)[1500:]) >= 50


def test_a_given_concurrency_stays() -> None:
    clock = FakeClock()
    assert set(drive(Governor(12, 256, clock), clock, queueing(3), 500)) == {12}


def test_it_never_grows_beyond_the_maximum_nor_below_one() -> None:
    clock = FakeClock()
    assert max(drive(Governor(0, 20, clock), clock, queueing(1000), 2000)) == 20
    clock = FakeClock()
    limits = drive(Governor(0, 20, clock), clock, lambda load, rng: (1.0, "pushed back"), 2000)
    assert min(limits) == limits[-1] == 1


Meanwhile = Callable[[Governor, Ticket, list[asyncio.Task[None]]], None]


def order_of_three(meanwhile: Meanwhile) -> list[str]:
    """In which order waiting calls of urgency 0, 4 and 2 get the one turn.

    `meanwhile` releases the ticket that they wait for.
    """

    async def run() -> list[str]:
        governor = Governor(1, 1)
        ticket = await governor.acquire("first")
        order: list[str] = []

        async def call(name: str, urgency: int) -> None:
            mine = await governor.acquire(name, urgency)
            order.append(name)
            governor.release(mine, "answered")

        tasks = [asyncio.create_task(call(name, u)) for name, u in [("a", 0), ("b", 4), ("c", 2)]]
        await asyncio.sleep(0)
        meanwhile(governor, ticket, tasks)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
        assert governor.num_in_flight == 0
        return order

    return asyncio.run(run())


def test_urgent_calls_go_first_and_a_cancelled_one_gives_its_turn_on() -> None:
    def cancel(governor: Governor, ticket: Ticket, tasks: list[asyncio.Task[None]]) -> None:
        governor.release(ticket, "answered")
        tasks[1].cancel()

    assert order_of_three(cancel) == ["c", "a"]


def test_latency_is_compared_within_a_stage() -> None:
    before = {"short": Latency(1.0, 10), "long": Latency(10.0, 10)}
    assert latency_growth(before, {"long": Latency(10.0, 40)}) == 1.0
    assert latency_growth(before, {"short": Latency(2.0, 10), "long": Latency(20.0, 30)}) == 2.0
    assert latency_growth(before, {"other": Latency(99.0, 40)}) == 1.0
    assert latency_growth(before, {"long": Latency(99.0, 7)}) == 1.0


def test_short_calls_that_wait_behind_long_ones_do_not_speak_for_them() -> None:
    """An eighth of the calls in flight waits, for two seconds: hardly a queue."""
    before = {"short": Latency(2.0, 80), "long": Latency(50.0, 20)}
    now = {"short": Latency(4.0, 80), "long": Latency(52.0, 20)}
    assert latency_growth(before, now) == (80 * 4 + 20 * 52) / (80 * 2 + 20 * 50)


def test_one_round_takes_no_more_than_a_third() -> None:
    clock = FakeClock()
    calls = iter(range(10_000))

    def serve(load: int, rng: random.Random) -> tuple[float, Outcome]:
        return 0.4 if next(calls) < 1500 else 40.0, "answered"

    limits = drive(Governor(0, 256, clock), clock, serve, 3500)
    assert limits[-1] < 0.5 * max(limits)
    assert all(other >= int(0.7 * one) for one, other in pairwise(limits))


def test_most_slots_are_found_within_two_hundred_answers() -> None:
    clock = FakeClock()
    limits = drive(Governor(0, 256, clock), clock, queueing(64), 200)
    assert max(limits[:120]) >= 58


def test_with_nothing_new_to_begin_the_least_urgent_go_first() -> None:
    def drain(governor: Governor, ticket: Ticket, tasks: list[asyncio.Task[None]]) -> None:
        governor.drain()
        governor.release(ticket, "answered")

    assert order_of_three(drain) == ["a", "c", "b"]


def test_no_long_queue_is_built_up_at_the_server_on_the_way() -> None:
    for slots in (32, 64, 100):
        clock = FakeClock()
        limits = drive(Governor(0, 512, clock), clock, queueing(slots), 1500)
        assert max(limits) <= 2.6 * slots, (slots, max(limits))


def test_what_each_server_bears_is_kept_where_servers_join_or_leave() -> None:
    clock = FakeClock()
    governor = Governor(0, 256, clock)
    governor.fit(64)
    assert governor.limit == 64 * FIRST_LIMIT
    assert max(drive(governor, clock, queueing(100_000), 600)) > 64 * FIRST_LIMIT
    governor.fit(32)
    assert 32 * FIRST_LIMIT < governor.limit <= 32 * 256
    found = governor.limit
    # With nobody there, nothing is forgotten.
    governor.fit(0)
    governor.fit(32)
    assert governor.limit == found
    fixed = Governor(12, 256, clock)
    fixed.fit(64)
    assert fixed.limit == 12


def test_calls_that_wait_are_admitted_when_servers_join() -> None:
    async def run() -> int:
        governor = Governor(0, 2)
        waiting = [asyncio.ensure_future(governor.acquire("s")) for _ in range(10)]
        await asyncio.sleep(0)
        governor.fit(3)
        await asyncio.sleep(0)
        num = sum(one.done() for one in waiting)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return num

    assert asyncio.run(run()) == 6
