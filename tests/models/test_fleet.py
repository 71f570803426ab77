"""Copies of a command are watched, replaced, drained and joined: here with processes of this
machine under an engine that replaces, as Ray's does on a cluster."""

import asyncio
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from asking import answers, until

from feldspar.endpoint.endpoint import Access, Endpoint
from feldspar.endpoint.faults import NoAnswers
from feldspar.endpoint.replicas import Replicas
from feldspar.models import fleet as fleet_module
from feldspar.models.fleet import Fleet
from feldspar.models.local_server import LocalEngine, LocalServer
from feldspar.models.ray_actor import NodePorts
from feldspar.models.ray_server import LOST, found_from_anywhere, host_in_url, take_ports
from feldspar.models.server import Start

SERVER = Path(__file__).with_name("chat_server.py")


class PlacedServer(LocalServer):
    """One whose place may come late, and may be taken away."""

    is_draining = False
    is_lost = False
    """With its node: its connections stay open."""

    def __init__(self, start: Start, number: int, port: int, is_placed: bool) -> None:
        super().__init__(start, number, port)
        self._url = self.url
        self.place(is_placed)

    def place(self, is_placed: bool) -> None:
        self.url = self._url if is_placed else None
        self.placed_at = time.monotonic() if is_placed else None

    @property
    def status(self) -> int | None:
        if self.is_lost:
            return LOST
        return super().status if self.placed_at is not None else None

    def wait(self) -> None:
        if self.is_lost:
            signal_to(self, signal.SIGKILL)
        super().wait()


class ReplacingEngine(LocalEngine):
    """Starts what has ended again; has `room` copies' worth of it."""

    is_replaced = True

    def __init__(self, num_placed: int = 100) -> None:
        super().__init__()
        self.num_placed = num_placed
        self.launched: list[PlacedServer] = []

    def launch(self, start: Start, number: int) -> PlacedServer:
        is_placed = len(self.launched) < self.num_placed
        server = PlacedServer(start, number, self._free_port(), is_placed)
        self.launched.append(server)
        return server

    def room(self) -> str:
        return "2 GPUs, 0 of them free"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "POLL_SECONDS", 0.03)


class CrowdedServer(PlacedServer):
    """It takes the one place as soon as that is free, and keeps it until it was waited for."""

    def __init__(self, start: Start, number: int, port: int, held: set[int]) -> None:
        super().__init__(start, number, port, False)
        self._number, self._held = number, held

    def look(self) -> None:
        if not self._held:
            self._held.add(self._number)
            self.place(True)

    def wait(self) -> None:
        super().wait()
        if self.placed_at is not None:
            self._held.discard(self._number)


class CrowdedEngine(ReplacingEngine):
    """Has one place."""

    def __init__(self) -> None:
        super().__init__()
        self._held: set[int] = set()

    def launch(self, start: Start, number: int) -> PlacedServer:
        server = CrowdedServer(start, number, self._free_port(), self._held)
        self.launched.append(server)
        return server


class FirstPlaceEngine(ReplacingEngine):
    """Has a place for the first copy alone."""

    def launch(self, start: Start, number: int) -> PlacedServer:
        self.num_placed = 0 if number else 100
        return super().launch(start, number)


def start_of(tmp_path: Path, *options: object, before: Sequence[str] = (), **changes) -> Start:
    words = [*before, sys.executable, "-S", str(SERVER), "{model}", "{host}", "{port}"]
    words += map(str, options)
    given = {"command": shlex.join(words), "num_replicas": 2, "seconds": 30.0, **changes}
    return Start(model="m", log_folder=tmp_path, **given)


def kill(server: LocalServer) -> None:
    """As the system does when memory runs out."""
    signal_to(server, signal.SIGKILL)


def signal_to(server: LocalServer, number: signal.Signals) -> None:
    """To the server itself, not to its guard."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
    os.kill(int(children.split()[0]), number)


def ask(fleet: Fleet, num: int, meanwhile=None, concurrency: int = 4) -> list[str]:
    """The answers to some calls, while something happens once calls are in flight."""

    async def in_flight() -> None:
        while not any(server.num_in_flight for server in fleet.pool.all):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        meanwhile()

    async def together() -> list[str]:
        name = await fleet.wait(Access())
        endpoint = Endpoint(
            Access(concurrency=concurrency), fleet.pool, name, check=fleet.check, place="here"
        )
        async with endpoint:
            return await answers(endpoint.complete, num, in_flight if meanwhile else None)

    return asyncio.run(together())


@pytest.mark.slow
def test_a_copy_that_dies_is_replaced_and_only_its_calls_are_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = tmp_path / "asked"
    engine = ReplacingEngine()
    with closing(Fleet(start_of(tmp_path, 0.2, asked), engine)) as fleet:
        until_up(fleet, 2)
        in_flight = []

        def die() -> None:
            in_flight.append(max(replica.num_in_flight for replica in fleet.pool.all))
            kill(engine.launched[0])

        found = ask(fleet, 16, die)
        assert len(found) == 16
        until_up(fleet, 2)
        assert len(engine.launched) == 3
        told = [r.message for r in caplog.records if "it is started again" in r.message]
        assert len(told) == 1
        assert "copy 1 of 2 ended before it had answered all" in told[0]
    times = Counter(asked.read_text().splitlines())
    assert len(times) == 16
    assert sum(count - 1 for count in times.values()) <= in_flight[0]


def until_up(fleet: Fleet, num: int) -> None:
    asyncio.run(fleet.wait(Access()))
    until(lambda: fleet.num_up == num)


@pytest.mark.slow
def test_when_all_die_calls_wait_for_those_that_take_their_place(tmp_path: Path) -> None:
    engine = ReplacingEngine()
    with closing(Fleet(start_of(tmp_path, 0.1), engine)) as fleet:
        until_up(fleet, 2)
        found = ask(fleet, 12, lambda: [kill(server) for server in engine.launched])
        assert len(found) == 12
        assert len(engine.launched) == 4


@pytest.mark.slow
def test_a_command_that_always_dies_is_given_up_with_its_last_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dies = shlex.join(
        [sys.executable, "-S", "-c", "import sys; print('out of memory'); sys.exit(3)", "{port}"]
    )
    engine = ReplacingEngine()
    with (
        closing(Fleet(start_of(tmp_path, command=dies, num_replicas=1), engine)) as fleet,
        pytest.raises(NoAnswers, match=r"did not come up \(status 3\); its last words: out of mem"),
    ):
        ask(fleet, 1)
    assert len(engine.launched) == fleet_module.MAX_USELESS_STARTS
    assert caplog.text.count("it is started again") == fleet_module.MAX_USELESS_STARTS - 1


DIES = [sys.executable, "-S", "-c", "import sys; print('a typo'); sys.exit(3)", "{port}"]


def test_copies_that_are_given_up_leave_their_place_to_others(tmp_path: Path) -> None:
    engine = CrowdedEngine()
    start = start_of(tmp_path, command=shlex.join(DIES))
    with (
        closing(Fleet(start, engine)) as fleet,
        pytest.raises(NoAnswers, match=r"did not come up \(status 3\); its last words: a typo"),
    ):
        ask(fleet, 1)
    assert len(engine.launched) == 2 * fleet_module.MAX_USELESS_STARTS


def test_a_copy_without_room_is_not_waited_for_when_the_others_are_given_up(tmp_path: Path) -> None:
    start = start_of(tmp_path, command=shlex.join(DIES), seconds=0.2)
    with (
        closing(Fleet(start, FirstPlaceEngine())) as fleet,
        pytest.raises(NoAnswers, match=r"found no room in 0\.2 s"),
    ):
        ask(fleet, 1)


def test_calls_begin_with_those_that_are_not_given_up(tmp_path: Path) -> None:
    go = tmp_path / "go"
    second_waits = f'while [ "$0" = 1 ] && [ ! -e {go} ]; do sleep 0.02; done; exec "$@"'
    start = start_of(tmp_path, before=["sh", "-c", second_waits, "{replica}"])

    async def lose_the_first(fleet: Fleet) -> str:
        waiting = asyncio.ensure_future(fleet.wait(Access()))
        while not fleet.num_up:
            await asyncio.sleep(0.01)
        kill(fleet.servers[0])
        while fleet.num_up:
            await asyncio.sleep(0.01)
        go.touch()
        return await asyncio.wait_for(waiting, 20)

    with closing(Fleet(start, LocalEngine())) as fleet:
        assert asyncio.run(lose_the_first(fleet)) == "m"
        assert fleet.num_up == 1


@pytest.mark.slow
def test_calls_begin_with_the_first_and_a_late_one_joins(tmp_path: Path) -> None:
    engine = ReplacingEngine(num_placed=1)
    with closing(Fleet(start_of(tmp_path), engine)) as fleet:
        assert len(set(ask(fleet, 8))) == 1
        engine.launched[1].place(True)
        until_up(fleet, 2)
        assert len(set(ask(fleet, 8))) == 2


@pytest.mark.slow
def test_a_draining_copy_ends_when_its_last_call_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = tmp_path / "asked"
    engine = ReplacingEngine()
    caplog.set_level(logging.INFO)
    with closing(Fleet(start_of(tmp_path, 0.3, asked), engine)) as fleet:
        until_up(fleet, 2)

        def drain() -> None:
            engine.launched[0].is_draining = True

        ask(fleet, 12, drain)
        until(lambda: engine.launched[0].status is not None)
        assert len(engine.launched) == 3
        until_up(fleet, 2)
    # Nothing was lost on the way, so nothing was asked twice.
    assert set(Counter(asked.read_text().splitlines()).values()) == {1}
    assert "copy 1 of 2 leaves its node" in caplog.text


def test_calls_on_a_draining_copy_whose_node_goes_are_asked_elsewhere(tmp_path: Path) -> None:
    engine = ReplacingEngine()
    with closing(Fleet(start_of(tmp_path, 0.1), engine)) as fleet:
        until_up(fleet, 2)

        def drain_and_go() -> None:
            server = engine.launched[0]
            signal_to(server, signal.SIGSTOP)
            server.is_draining = True
            until(lambda: len(engine.launched) == 3)
            server.is_lost = True

        assert len(ask(fleet, 12, drain_and_go)) == 12


def test_where_there_is_no_room_it_is_said_what_there_is(tmp_path: Path) -> None:
    engine = ReplacingEngine(num_placed=0)
    with (
        closing(Fleet(start_of(tmp_path, seconds=0.2), engine)) as fleet,
        pytest.raises(
            NoAnswers, match=r"found no room in 0.2 s \(2 GPUs, 0 of them free\)"
        ) as told,
    ):
        ask(fleet, 1)
    assert "lower `gpus_each` or `replicas`" in told.value.sentence("teacher")


def test_a_pool_takes_servers_in_and_out() -> None:
    pool = Replicas([])
    assert pool.begin() is None
    one, other = pool.add("http://a"), pool.add("http://b")
    assert {pool.begin(), pool.begin()} == {one, other}
    pool.remove(one)
    assert pool.begin() is other
    pool.end(other, None)
    assert other.has_answered
    assert not one.has_answered


@pytest.mark.slow
def test_a_local_run_imports_no_ray() -> None:
    code = (
        "import sys, feldspar.flow, feldspar.cli.run\n"
        "from feldspar.models.fleet import engine_of\n"
        "from feldspar.models.server import Start\n"
        "from pathlib import Path\n"
        "engine_of(Start(command='x {port}', model='m', log_folder=Path()))\n"
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_on_a_node_a_folder_is_named_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert found_from_anywhere("runs") == str(tmp_path / "runs")
    assert found_from_anywhere("mistralai/Mixtral-8x7B") == "mistralai/Mixtral-8x7B"
    assert found_from_anywhere("") == ""


@pytest.mark.skipif(sys.platform != "linux", reason="parents' deaths are told on Linux alone")
def test_a_command_ends_when_its_guard_is_killed(tmp_path: Path) -> None:
    """As Ray does it with the children of a worker that is lost."""
    server = LocalServer(start_of(tmp_path), 0, LocalEngine()._free_port())
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    until(lambda: children.read_text().split())
    child = int(children.read_text().split()[0])
    until(lambda: server.log_path.read_text() == "listens\n")
    server.process.kill()
    server.process.wait()
    until(lambda: not Path(f"/proc/{child}").exists())
    server.let_go()


def test_servers_of_a_node_get_different_ports() -> None:
    assert take_ports([NodePorts(7001, 7002, "one node", "0")])
    assert take_ports([NodePorts(7001, 7002, "another node", "0")])
    assert not take_ports([NodePorts(7003, 7001, "one node", "1")])
    assert take_ports([NodePorts(7003, 7004, "one node", "1")])


def test_an_ipv6_address_is_bracketed_in_a_url() -> None:
    assert host_in_url("fd00::7") == "[fd00::7]"
    assert host_in_url("10.0.0.7") == "10.0.0.7"
