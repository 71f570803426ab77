"""Servers on the nodes of a real Ray cluster: two raylets of this machine, with logical GPUs.

Ray is not among the dev extras (it unpacks to 285 MB): docs/cluster.md says how to run these.
"""

import asyncio
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from asking import answers
from asking import until as until_in

from feldspar.endpoint.endpoint import Access
from feldspar.endpoint.faults import NoAnswers
from feldspar.models.launched import LaunchedModel
from feldspar.models.server import Start

ray = pytest.importorskip("ray", reason="needs pip install 'feldspar[cluster]'")
SERVER = Path(__file__).with_name("chat_server.py")

pytestmark = [
    pytest.mark.slow,
    # Ray leaves files and sockets of its daemons to be collected.
    pytest.mark.filterwarnings("ignore"),
]


def model_of(tmp_path: Path, *options: object, **changes: object) -> LaunchedModel:
    words = [sys.executable, "-S", str(SERVER), "{model}", "{host}", "{port}", *map(str, options)]
    given = {"command": shlex.join(words), "num_replicas": 2, "gpus_each": 1, "seconds": 240.0}
    start = Start(model="m", log_folder=tmp_path / "servers", engine="ray", **(given | changes))
    return LaunchedModel(start, Access(concurrency=8))


def ask(model: LaunchedModel, num: int, meanwhile=None) -> list[str]:
    async def a_little_later() -> None:
        await asyncio.sleep(0.5)
        await asyncio.to_thread(meanwhile)

    async def together() -> list[str]:
        async with model:
            await model.served()
            return await answers(model.complete, num, a_little_later if meanwhile else None)

    return asyncio.run(together())


def until(condition: Callable[[], object]) -> None:
    """Ray's processes take long to start on a busy machine."""
    until_in(condition, seconds=240.0)


def free_gpus() -> float:
    return ray.available_resources().get("GPU", 0.0)


def test_copies_are_placed_logged_and_their_gpus_given_back(cluster, tmp_path: Path) -> None:
    model = model_of(tmp_path)
    found = ask(model, 12)
    assert len(found) == 12
    until(lambda: all(server.placed_at for server in model.servers))
    assert free_gpus() == 2
    logs = sorted(tmp_path.glob("servers/*.log"))
    assert [path.name for path in logs] == ["server-0.log", "server-1.log"]
    until(lambda: all("listens" in path.read_text() for path in logs))
    model.close()
    until(lambda: free_gpus() == 4)


def test_a_killed_actor_is_replaced_and_only_its_calls_are_asked_again(cluster, tmp_path) -> None:
    asked = tmp_path / "asked"
    model = model_of(tmp_path, 0.3, asked)
    ask(model, 4)
    until(lambda: all(server.placed_at for server in model.servers))
    asked.unlink()
    found = ask(model, 32, lambda: ray.kill(model.servers[0].actors[0]))
    assert len(found) == 32
    times = Counter(asked.read_text().splitlines())
    assert len(times) == 32
    # Eight calls are in flight at a time, over both copies.
    assert sum(count - 1 for count in times.values()) <= 8
    model.close()


def test_a_node_that_is_lost_takes_its_copies_and_they_start_elsewhere(cluster, tmp_path) -> None:
    asked = tmp_path / "asked"
    extra = cluster.add_node(num_cpus=4, num_gpus=4, resources={"extra": 1})
    model = model_of(tmp_path, 0.3, asked, num_replicas=4)
    ask(model, 8)
    until(lambda: all(server.placed_at for server in model.servers))
    asked.unlink()
    found = ask(model, 40, lambda: cluster.remove_node(extra, allow_graceful=False))
    assert len(found) == 40
    times = Counter(asked.read_text().splitlines())
    assert len(times) == 40
    assert sum(count - 1 for count in times.values()) <= 8
    model.close()
    # Ray counts the lost node's for a while.
    until(lambda: free_gpus() == ray.cluster_resources()["GPU"] == 4)


def test_a_copy_over_two_nodes_has_a_process_on_each(cluster, tmp_path: Path) -> None:
    code = (
        "import runpy, sys\n"
        "node, nodes, head, port = sys.argv[1:5]\n"
        "print('node', node, 'of', nodes, 'meets at', head, port, flush=True)\n"
        "if node != '0':\n import time; time.sleep(600)\n"
        "sys.argv = [sys.argv[5], *sys.argv[6:]]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = [sys.executable, "-S", "-c", code, "{node}", "{nodes}", "{head}", "{head_port}",
             str(SERVER), "{model}", "{host}", "{port}"]  # fmt: skip
    model = model_of(tmp_path, command=shlex.join(words), num_replicas=1, nodes_each=2)
    assert len(ask(model, 4)) == 4
    log_path = tmp_path / "servers" / "server.log"
    until(lambda: {"node 0 of 2", "node 1 of 2"} <= set(told(log_path)))
    model.close()
    until(lambda: free_gpus() == 4)


def told(path: Path) -> list[str]:
    return [line.partition(" meets")[0] for line in path.read_text().splitlines()]


def test_what_asks_for_more_than_there_is_says_what_there_is(cluster, tmp_path: Path) -> None:
    model = model_of(tmp_path, gpus_each=3, num_replicas=1, seconds=2.0)
    with pytest.raises(NoAnswers, match=r"found no room in 2 s \(the cluster has 4 GPUs, 4 of"):
        ask(model, 1)
    model.close()


def test_a_command_that_ends_is_told_of_with_its_last_words(cluster, tmp_path: Path) -> None:
    dies = shlex.join([sys.executable, "-S", "-c", "raise SystemExit('no room')", "{port}"])
    # There is room for two of them at a time: those that are given up make it for the third.
    model = model_of(tmp_path, command=dies, num_replicas=3, gpus_each=2)
    with pytest.raises(NoAnswers, match=r"did not come up \(status 1\); its last words: .*no room"):
        ask(model, 1)
    model.close()
    until(lambda: free_gpus() == 4)
