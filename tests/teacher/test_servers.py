from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
from fake_teacher import FakeTeacher, Fault
from test_client import CONFIG, ask, echo, together

from feldspar.config import TeacherConfig
from feldspar.endpoint import retry
from feldspar.endpoint.calls import ChatCall, Json
from feldspar.endpoint.endpoint import Access, Endpoint
from feldspar.endpoint.faults import Fault as Failure
from feldspar.endpoint.rate_limit import Pace
from feldspar.endpoint.replicas import FAILURES_IN_A_ROW, FIRST_REST_SECONDS, Replica, Replicas
from feldspar.endpoint.transport import HttpReply, Transport
from feldspar.errors import TeacherError
from feldspar.teacher import Journal, open_teacher

DOWN = Failure("retry", "500")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_call_goes_where_the_fewest_are() -> None:
    servers = Replicas(["a", "b"])
    first, second, third = servers.begin(), servers.begin(), servers.begin()
    assert [first.url, second.url] == ["a", "b"]
    servers.end(third, None)
    servers.end(second, None)
    assert servers.begin().url == "b"


def test_a_server_that_only_fails_rests_and_is_tried_with_one_call() -> None:
    clock = Clock()
    servers = Replicas(["a", "b"], clock)
    bad = servers.all[0]
    for _ in range(FAILURES_IN_A_ROW):
        bad.num_in_flight += 1
        servers.end(bad, DOWN)
    assert {servers.begin().url for _ in range(5)} == {"b"}
    assert servers.health() == (1, 2)
    clock.now += FIRST_REST_SECONDS
    assert [servers.begin().url for _ in range(3)] == ["a", "b", "b"]
    assert servers.health() == (1, 2)
    servers.end(bad, DOWN)
    clock.now += FIRST_REST_SECONDS
    assert servers.begin().url == "b"
    clock.now += FIRST_REST_SECONDS
    assert servers.begin().url == "a"
    servers.end(bad, None)
    assert servers.health() == (2, 2)
    assert [servers.begin().url for _ in range(3)] == ["a", "a", "a"]


def under_way(seconds: Mapping[str, float], num: int, *, calls: int = 2000) -> dict[str, float]:
    """Calls on each server in the mean of the second half, `num` at a time on all together, if
    each takes so many seconds on this server or that."""
    clock = Clock()
    servers = Replicas(list(seconds), clock)
    ends: list[tuple[float, int, Replica]] = []
    sums = dict.fromkeys(seconds, 0.0)
    for number in range(calls):
        if len(ends) == num:
            clock.now, _, ended = heapq.heappop(ends)
            servers.end(ended, None)
        server = servers.begin()
        assert server is not None
        heapq.heappush(ends, (clock.now + seconds[server.url], number, server))
        if number >= calls // 2:
            for each in servers.all:
                sums[each.url] += each.num_in_flight
    return {url: total / (calls - calls // 2) for url, total in sums.items()}


def test_a_slow_server_has_fewer_calls_under_way_and_no_other_has() -> None:
    assert under_way({"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.3}, 24) == pytest.approx(
        {"a": 6, "b": 6, "c": 6, "d": 6}, abs=0.1
    )
    found = under_way({"a": 1.0, "b": 1.0, "c": 1.0, "d": 4.0}, 26)
    # Each of the others has four times as many, for a quarter of the time.
    assert found["d"] == pytest.approx(2, abs=0.3)
    assert found["a"] == pytest.approx(8, abs=0.3)


def test_a_server_that_has_recovered_is_asked_as_the_others_are() -> None:
    clock = Clock()
    servers = Replicas(["a", "b"], clock)
    for seconds, is_slow in ((4.0, True), (1.0, False)):
        for _ in range(200):
            for server, takes in zip(servers.all, (1.0, seconds), strict=True):
                server.begin(clock.now)
                clock.now += takes
                servers.end(server, None)
        assert (servers.all[1].slowness > 3) == is_slow
        assert servers.all[0].slowness == 1


@pytest.mark.parametrize(("num_servers", "at_once"), [(2, 32), (4, 64)])
def test_a_server_that_hung_gets_its_share_again(num_servers: int, at_once: int) -> None:
    """Its calls take five minutes until they are given up; that is no pace of what it answers."""
    clock = Clock()
    servers = Replicas([str(n) for n in range(num_servers)], clock)
    hangs = servers.all[0]
    ends: list[tuple[float, int, Replica, Failure | None]] = []
    num_asked = 0
    for number in itertools.count():
        while len(ends) < at_once:
            server = servers.begin()
            assert server is not None
            fails = server is hangs and 100 < clock.now < 400
            lasts, fault = (300.0, DOWN) if fails else (3.0, None)
            heapq.heappush(ends, (clock.now + lasts, number * at_once + len(ends), server, fault))
            num_asked += server is hangs and clock.now > 1500
        clock.now, _, ended, fault = heapq.heappop(ends)
        servers.end(ended, fault)
        if clock.now > 1800:
            break
    usual = 300 / 3 * at_once / num_servers
    assert num_asked == pytest.approx(usual, rel=0.1)


def test_with_all_at_rest_somebody_is_still_asked() -> None:
    servers = Replicas(["a"], Clock())
    for _ in range(2 * FAILURES_IN_A_ROW):
        servers.end(servers.begin(), DOWN)
    assert servers.begin().url == "a"


def test_refusals_and_too_many_calls_are_no_failures() -> None:
    servers = Replicas(["a"], Clock())
    for fault in [Failure("refused", "400"), Failure("push back", "429")] * 9:
        servers.end(servers.begin(), fault)
    assert servers.all[0].rests_until == 0


class Hanging(Transport):
    """To `http://gone` nothing is ever answered, as where a node lost its power."""

    async def __aenter__(self) -> Hanging:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def post(self, url: str, body: Json, headers: Mapping[str, str]) -> HttpReply | Failure:
        if url.startswith("http://gone"):
            await asyncio.Event().wait()
        await asyncio.sleep(0.01)
        message = {"role": "assistant", "content": "here"}
        return HttpReply({"choices": [{"message": message, "finish_reason": "stop"}]})


def test_calls_on_a_lost_server_are_asked_elsewhere_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)
    servers = Replicas(["http://gone", "http://here"])
    endpoint = Endpoint(Access(), servers, "m", transport=Hanging(60.0))
    call = ChatCall(messages=[{"role": "user", "content": "?"}], temperature=0, max_tokens=5)

    async def run() -> list[str]:
        async with endpoint:
            asking = [asyncio.ensure_future(endpoint.complete(call)) for _ in range(8)]
            done, hanging = await asyncio.wait(asking, timeout=0.05)
            assert (len(done), len(hanging)) == (4, 4)
            # Another thread finds out.
            await asyncio.to_thread(servers.lose, servers.all[0])
            return [one.choices[0].text for one in await asyncio.gather(*asking)]

    assert asyncio.run(asyncio.wait_for(run(), 10)) == ["here"] * 8


def test_two_servers_share_the_calls_and_one_takes_over(tmp_path: Path) -> None:
    with (
        FakeTeacher(echo, seconds=lambda call: 0.02) as one,
        FakeTeacher(echo, seconds=lambda call: 0.02) as other,
        Journal(tmp_path / "j") as journal,
    ):
        config = CONFIG.model_copy(update={"endpoints": (other.url,), "max_retries": 8})
        teacher = open_teacher(config, one.url, journal)
        together(teacher, *(lambda n=n: ask(teacher, f"{n}") for n in range(40)))
        assert min(one.num_served, other.num_served) >= 15
        one.fault = lambda call: Fault(500)
        replies = together(teacher, *(lambda n=n: ask(teacher, f"again {n}") for n in range(60)))
        assert len(replies) == 60


def test_servers_with_different_revisions_are_not_mixed(tmp_path: Path) -> None:
    with (
        FakeTeacher(card={"id": "expert", "revision": "1"}) as one,
        FakeTeacher(card={"id": "expert", "revision": "2"}) as other,
        Journal(tmp_path / "j") as journal,
        pytest.raises(TeacherError, match="revisions '1' and '2'"),
    ):
        open_teacher(TeacherConfig(endpoints=(other.url,)), one.url, journal)


def test_a_pace_spreads_what_comes_after_the_burst() -> None:
    pace = Pace(60)
    waits = [pace.take_at(0.0, 1) for _ in range(8)]
    assert waits == [0, 0, 0, 0, 0, 1, 2, 3]
    pace.give_back(2)
    assert pace.take_at(0.0, 1) == 2
    assert pace.take_at(100.0, 1) == 0
    assert Pace(None).take_at(0.0, 10**9) == 0


def test_requests_a_minute_are_kept(tmp_path: Path) -> None:
    with FakeTeacher(echo) as server, Journal(tmp_path / "j") as journal:
        teacher = open_teacher(
            CONFIG.model_copy(update={"requests_per_minute": 120}), server.url, journal
        )

        async def run() -> int:
            async with teacher:
                asks = [asyncio.ensure_future(ask(teacher, f"{n}")) for n in range(30)]
                await asyncio.sleep(1.0)
                num_served = server.num_served
                for task in asks:
                    task.cancel()
                await asyncio.gather(*asks, return_exceptions=True)
            return num_served

        assert 10 <= asyncio.run(run()) <= 12
