"""The simulator beside the real thing: generation over HTTP against servers that sleep.

    python benchmarks/scale_check.py

Each server is a process with 16 slots; service times are those of `scale_sim.py` over five.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelled_servers import Service, reply_to
from scale_sim import SERVICE, Scenario, answer, generate, simulate

from feldspar.config import TeacherConfig
from feldspar.endpoint.endpoint import STAGE_HEADER, Endpoint
from feldspar.endpoint.models_list import ListedModel
from feldspar.models.opening import access_of
from feldspar.models.served import ServedModel
from feldspar.teacher import Journal

CHECK_SERVICE = Service(medians={stage: s / 5 for stage, s in SERVICE.medians.items()})


async def serve_sleeping(slots: int) -> None:
    """A server that answers as the modelled ones do, after as long, over HTTP; prints its port."""
    room, rng, numbers = asyncio.Semaphore(slots), random.Random(), random.Random()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(
                    line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line
                )
                await reader.readexactly(int(fields.get("content-length", 0)))
                stage = fields.get(STAGE_HEADER.lower(), "")
                async with room:
                    await asyncio.sleep(CHECK_SERVICE.draw(stage, rng))
                body = json.dumps(reply_to(answer(stage, {}, numbers))).encode()
                kind = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                writer.write(kind + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


def check_rows() -> Iterator[str]:
    """The same generation over HTTP, against servers that sleep, and simulated."""
    for replicas, leaves in ((2, 10), (4, 20)):
        scenario = Scenario(replicas=replicas, leaves=leaves, slots=16, boot_seconds=0.0)
        with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
            urls = [stack.enter_context(sleeping_server(16)) for _ in range(replicas)]
            config = TeacherConfig(endpoint=urls[0], endpoints=tuple(urls[1:]), model="modelled")
            model = ServedModel(
                Endpoint(access_of(config), urls, "modelled"), ListedModel("modelled")
            )
            journal = stack.enter_context(Journal(Path(folder) / "journal"))
            began = time.monotonic()
            num = generate(model, config, journal, scenario)
            real = time.monotonic() - began
        modelled = simulate(scenario, CHECK_SERVICE).makespan
        yield f"| {replicas} | {num:,} | {real:.1f} | {modelled:.1f} | {modelled / real - 1:+.1%} |"


@contextmanager
def sleeping_server(slots: int) -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, __file__, "--serve", str(slots)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        server.communicate("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        asyncio.run(serve_sleeping(given.serve))
        return
    for line in check_rows():
        print(line, flush=True)


if __name__ == "__main__":
    main()
