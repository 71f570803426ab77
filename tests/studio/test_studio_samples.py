"""The samples of a run are narrowed down and reviewed on their pages."""

import asyncio
from pathlib import Path

import pytest
from by_hand import do_step
from studio_client import Client, enter, in_studio

from feldspar.config import Recipe
from feldspar.records import Leaf, Sample
from feldspar.reviews import ReviewCounts, note_honoured
from feldspar.runs import Run

RECIPE = Recipe.model_validate({"name": "r", "taxonomy": {"path": "t"}, "student": {"base": "b"}})


def samples() -> list[Sample]:
    return [
        Sample(
            id=str(n),
            leaf="knowledge/town",
            branch="knowledge",
            question=f"Who bakes {n}?",
            answer="Zorbo.",
            chunk="c",
            rejected_because="duplicate" if n % 2 else None,
        )
        for n in range(60)
    ]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    leaf = Leaf(path="knowledge/town", branch="knowledge", task_description="", seeds=())
    with Run(tmp_path / "runs" / "r", RECIPE) as run:
        do_step(run, "leaves", lambda: [leaf])
        do_step(run, "samples", samples)
    return tmp_path / "runs"


def test_filters_add_up(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        asked = "words=bakes&amp;leaf=knowledge%2Ftown&amp;chunk=c&amp;review=open"
        page = f"/runs/r/samples?{asked.replace('&amp;', '&')}"
        text = await (await client.get(page)).text()
        for more in ("reason=duplicate", "after=50"):
            assert f'href="/runs/r/samples?{asked}&amp;{more}"' in text
        assert '<input type="hidden" name="chunk" value="c">' in text
        text = await (await client.get(f"{page}&after=50")).text()
        assert "showing 51 to 60" in text

    in_studio(runs, use)


def test_decisions_that_were_all_taken_back_can_still_be_honoured(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        assert "Nobody has reviewed" in await (await client.get("/runs/r/reviews")).text()
        note_honoured(runs / "r", ReviewCounts(num_reviewed=1, changes_key="x"))
        text = await (await client.get("/runs/r/reviews")).text()
        assert "All decisions were taken back" in text
        assert "mixes the phases as they were before any review" in text

    in_studio(runs, use)


def test_samples_that_cannot_be_counted_are_told_and_counted_later(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = runs.parent / "cache" / "samples"
    in_the_way.parent.mkdir()
    in_the_way.write_text("")

    async def until(client: Client, status: int, text: str) -> None:
        for _ in range(200):
            reply = await client.get("/runs/r/verdict")
            if reply.status == status and text in await reply.text():
                return
            await asyncio.sleep(0.05)
        pytest.fail(f"never {status}: {text}")

    async def use(client: Client) -> None:
        await enter(client)
        await until(client, 500, "File exists")
        in_the_way.unlink()
        monkeypatch.setattr("feldspar.studio.run_cache.RETRY_SECONDS", 0.0)
        await until(client, 200, "What was taught")
        for _ in range(200):
            if "are being counted" not in await (await client.get("/runs/r/verdict")).text():
                return
            await asyncio.sleep(0.05)
        pytest.fail("never counted")

    in_studio(runs, use)
