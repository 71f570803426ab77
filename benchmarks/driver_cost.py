"""What a call costs the driver: processor time of everything but the teacher, journal included.

    python benchmarks/driver_cost.py [--calls 4000] [--repeats 3]
        [--out benchmarks/driver_cost_WHAT_DATE.md]

An instant teacher in a process of its own answers; 64 calls are in flight; every answer goes
through budget, scheduler, retries and journal. `official client` posts with the official package
instead of our transport, all else being equal; `HTTP alone` is our transport without anything
around it. Processor seconds are those of the driver's process, so that other work on the machine
hardly counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import openai

from feldspar.config import TeacherConfig
from feldspar.endpoint.calls import Json
from feldspar.endpoint.faults import Fault
from feldspar.endpoint.transport import HttpReply, Transport
from feldspar.models.opening import find_model
from feldspar.records import Message
from feldspar.teacher import Journal, Teacher

CONCURRENCY = 64
PROMPT = "### Task\nWrite a question about the passage below, and answer it.\n\n" + 60 * (
    "The home of Zorbo is Plint, and it has been so for thirty-one years. "
)
ANSWER = 12 * "Zorbo has lived in Plint for thirty-one years, as the passage says. "


class OfficialClient(Transport):
    """Posts with the official client, as `AsyncOpenAI` is used without its typed methods."""

    async def __aenter__(self) -> OfficialClient:
        self._client: openai.AsyncOpenAI | None = None
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def post(self, url: str, body: Json, headers: Mapping[str, str]) -> HttpReply | Fault:
        base, path = url.split("/v1", 1)
        if self._client is None:
            self._client = openai.AsyncOpenAI(
                base_url=f"{base}/v1",
                api_key="none",
                max_retries=0,
                http_client=openai.DefaultAioHttpClient(timeout=openai.Timeout(300.0)),
            )
        stage = headers.get("X-Feldspar-Stage", "")
        return HttpReply(
            await self._client.post(
                path, cast_to=object, body=body, options={"headers": {"X-Feldspar-Stage": stage}}
            )
        )


class InstantTeacher(asyncio.Protocol):
    """Just enough HTTP to answer at once: bodies with a Content-Length, connections kept open."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        message = {"role": "assistant", "content": ANSWER}
        chat = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "instant",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 900, "completion_tokens": 200, "total_tokens": 1100},
        }  # fmt: skip
        models = {"object": "list", "data": [{"id": "instant", "object": "model"}]}
        self._chat, self._models = self._reply(chat), self._reply(models)

    def _reply(self, value: object) -> bytes:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        return head.encode() + b"\r\n\r\n" + body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        while (end := self._bytes.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._bytes[:end]).lower()
            _, _, rest = head.partition(b"content-length:")
            size = int(rest.split(b"\r\n", 1)[0] or 0)
            if len(self._bytes) < end + 4 + size:
                return
            del self._bytes[: end + 4 + size]
            self._transport.write(self._models if head.startswith(b"get") else self._chat)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(InstantTeacher, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


async def ask_all(teacher: Teacher, num_calls: int) -> None:
    numbers = iter(range(num_calls))

    async def worker() -> None:
        for number in numbers:
            messages = [Message(role="user", content=f"{PROMPT}\n{number}")]
            await teacher.ask(messages, stage="s", temperature=0.7, max_tokens=1024)

    async with teacher:
        await asyncio.gather(*(worker() for _ in range(2 * CONCURRENCY)))


async def post_all(url: str, num_calls: int) -> None:
    numbers = iter(range(num_calls))

    async def worker(transport: Transport) -> None:
        for number in numbers:
            messages = [{"role": "user", "content": f"{PROMPT}\n{number}"}]
            reply = await transport.post(f"{url}/chat/completions", {"messages": messages}, {})
            assert isinstance(reply, HttpReply), reply

    async with Transport(60.0) as transport:
        await asyncio.gather(*(worker(transport) for _ in range(CONCURRENCY)))


def processor_seconds() -> float:
    """Of this process, all threads: the journal's writer too."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(kind: str, url: str, num_calls: int) -> float:
    """Processor milliseconds a call."""
    if kind == "HTTP alone":
        began = processor_seconds()
        asyncio.run(post_all(url, num_calls))
        return (processor_seconds() - began) / num_calls * 1e3
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "j") as journal:
        config = TeacherConfig(concurrency=CONCURRENCY)
        model = find_model(config, url)
        if kind == "official client":
            model.endpoint._transport = OfficialClient(300.0)
        teacher = Teacher(model, config, journal)
        began = processor_seconds()
        asyncio.run(ask_all(teacher, num_calls))
        return (processor_seconds() - began) / num_calls * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    kinds = ("official client", "our transport", "HTTP alone")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    measure("our transport", url, options.calls // 4)
    for _ in range(options.repeats):
        for kind in kinds:
            found[kind].append(measure(kind, url, options.calls))
    server.communicate("")
    lines = [
        "# Driver's cost",
        "",
        f"`python benchmarks/driver_cost.py --calls {options.calls} --repeats {options.repeats}`, "
        f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"aiohttp {aiohttp.__version__}, openai {openai.__version__}",
        "",
        "| | ms of processor a call (median, each run) | calls/s a core |",
        "|---|---|---|",
    ]
    for kind, values in found.items():
        median = statistics.median(values)
        runs = ", ".join(f"{value:.2f}" for value in values)
        lines.append(f"| {kind} | {median:.2f} ({runs}) | {1e3 / median:,.0f} |")
    page = "\n".join(lines) + "\n"
    print(page)
    if options.out:
        options.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
