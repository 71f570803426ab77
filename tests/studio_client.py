"""A client of a studio that a test starts, and what it is shown."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
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
