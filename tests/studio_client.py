"""A client of a studio that a test starts, and what it is shown."""

import asyncio
import dataclasses
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer

from feldspar.records import Interval
from feldspar.stats.merge_curve import MeanMark
from feldspar.studio.app import make_studio
from feldspar.views.frontier import ArmFigures, StudyResult

TOKEN = "the-token"
HOSTILE = "<script>alert('x')</script><img src=http://evil.example/x.png>"
Client = TestClient


def in_studio(
    folder: Path,
    use: Callable[[Client], Awaitable[None]],
    *,
    read_only: bool = False,
    reviewer: str = "",
) -> None:
    async def main() -> None:
        server = TestServer(make_studio(folder, TOKEN, read_only=read_only, reviewer=reviewer))
        jar = CookieJar(unsafe=True)
        async with TestClient(server, cookie_jar=jar) as client:
            await use(client)

    asyncio.run(main())


async def enter(client: Client) -> None:
    reply = await client.get("/", params={"token": TOKEN})
    assert reply.status == 200
    assert "token" not in str(reply.url)


def write_study(folder: Path) -> None:
    """A study in which every text is hostile."""

    def row(name: str, learned: int) -> ArmFigures:
        mark = MeanMark(learned / 10, Interval(learned / 10 - 0.1, learned / 10 + 0.1), 10)
        return ArmFigures(
            name=name, settings=(HOSTILE,), learned=mark, learned_by_seed=(learned / 10,),
            kept=mark, kept_by_seed=(0.5,), exams={HOSTILE: mark}, learned_to_first=None,
            kept_to_first=None, has_learned_as_much=True, is_on_front=True, trained_tokens=1.0,
            seconds=2.0, shared=(HOSTILE,),
        )  # fmt: skip

    result = StudyResult(
        learned_exams=(HOSTILE,),
        num_seeds=1,
        equal_tokens=False,
        rows=(row("base", 1), row(HOSTILE, 7)),
        runs={HOSTILE: (HOSTILE,)},
    )
    folder.mkdir()
    (folder / "frontier.json").write_text(json.dumps(dataclasses.asdict(result)))


@contextmanager
def serving_one_reply(reply: str) -> Iterator[tuple[str, list[str]]]:
    """A teacher that says one thing; its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply({"data": [{"id": "large"}]})

        def do_POST(self) -> None:
            call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(call["messages"][0]["content"])
            message = {"role": "assistant", "content": reply}
            self.reply({"choices": [{"message": message, "finish_reason": "stop"}]})

        def reply(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
        server.shutdown()
