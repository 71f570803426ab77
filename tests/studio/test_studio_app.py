"""The studio shows every page to whoever has its address, and nothing to anyone else."""

import io
import json
import shutil
from pathlib import Path

import pytest
from aiohttp import ClientSession
from by_hand import do_step
from studio_client import HOSTILE, Client, enter, in_studio, write_study

from feldspar.config import Recipe
from feldspar.records import (
    Answer,
    Checkpoint,
    Chunk,
    ExamItem,
    Interval,
    Leaf,
    Sample,
    Score,
    Seed,
)
from feldspar.reviews import read_decisions, review_key
from feldspar.runs import Run, write_rows
from feldspar.steps import Workspace
from feldspar.studio.app import NAVIGATION

PAGES = [page for page, _ in NAVIGATION]


def samples() -> list[Sample]:
    return [
        Sample(
            id=str(n),
            leaf=f"knowledge/{HOSTILE}",
            branch="knowledge",
            question=f"{HOSTILE} {n}",
            answer=HOSTILE,
            context=HOSTILE,
            seeds=("s",),
            rejected_because=None if n else f"judge: {HOSTILE}",
        )
        for n in range(3)
    ]


def scores(workspace: Workspace) -> list[Score]:
    (workspace.folder / "answers").mkdir()
    for name, is_right in (("base", False), ("skills", True)):
        said = Answer(
            item="i", exam=HOSTILE, leaf="", text=HOSTILE, is_right=is_right, log_likelihood=None
        )
        write_rows(workspace.folder / "answers" / f"{name}.jsonl.zst", [said])
    return [
        Score(
            checkpoint=name,
            exam=HOSTILE,
            metric="accuracy",
            value=value,
            interval=Interval(value - 0.1, value + 0.1),
            num_items=20,
        )
        for name, value in (("base", 0.2), ("skills", 0.9))
    ]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run in which every text is hostile."""
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    recipe = Recipe.model_validate(
        {"name": "r", "taxonomy": {"path": "t"}, "student": {"base": "b"}}
    )
    leaf = Leaf(
        path=f"knowledge/{HOSTILE}",
        branch="knowledge",
        task_description=HOSTILE,
        seeds=(Seed(id="s", question=HOSTILE, answer=HOSTILE),),
        chunks=(
            Chunk(id="c", document=HOSTILE, text=f"The baker lives {HOSTILE}", num_tokens=9),
            Chunk(id="d", document="d.md", text="Another.", num_tokens=1),
        ),
    )
    item = ExamItem(id="i", exam=HOSTILE, question=HOSTILE, reference=HOSTILE, accepted=("x",))
    with Run(tmp_path / "runs" / "a & b", recipe) as run:
        do_step(run, "leaves", lambda: [leaf])
        do_step(run, "samples", samples)
        do_step(run, "own-exams", lambda: [item])
        do_step(run, "trained", lambda: [Checkpoint(path="p", digest="d", phase="skills")])
        do_step(run, "scores", scores)
    return tmp_path / "runs"


def test_every_page_is_there_and_takes_no_text_for_html(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        await decide(client, "1", verdict="rejected", reason=HOSTILE)
        await decide(client, "2", verdict="edited", question=HOSTILE, answer=HOSTILE)
        more = [
            f"leaf?path=knowledge/{HOSTILE}",
            "sample?id=0",
            "samples?words=script&state=x",
            "turned?before=base&after=skills",
        ]
        for page in [*PAGES, *more]:
            reply = await client.get(f"/runs/a%20%26%20b/{page.replace(' ', '%20')}")
            text = await reply.text()
            assert reply.status == 200, (page, text)
            assert "<script>alert" not in text, page
            assert "<img" not in text, page
            assert "a &amp; b" in text
            assert " style=" not in text
            policy = reply.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy

    in_studio(runs, use, reviewer="anna")


def test_the_report_is_the_same_views_as_one_file(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        text = await (await client.get("/runs/a%20%26%20b/report.html")).text()
        assert "Did it learn?" in text
        assert "<script" not in text

    in_studio(runs, use)


def test_nobody_comes_in_without_the_token(runs: Path) -> None:
    async def use(client: Client) -> None:
        for address in ("/", "/runs/a%20%26%20b/verdict", "/static/page.css", "/?token=wrong"):
            reply = await client.get(address)
            assert reply.status == 403, address
            assert "default-src 'none'" in reply.headers["Content-Security-Policy"]

    in_studio(runs, use)


def test_pages_of_other_sites_are_refused(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        evil = {"Origin": "http://evil.example"}
        assert (await client.get("/", headers=evil)).status == 403
        assert (await client.get("/", headers={"Host": "evil.example"})).status == 403
        ask = "/runs/a%20%26%20b/chat/taught"
        assert (await client.post(ask, data={"messages": "x"})).status == 415
        body = json.dumps({"messages": []})
        json_type = {"Content-Type": "application/json"}
        assert (await client.post(ask, data=body, headers=json_type)).status == 422
        large = io.BytesIO(b" " * (2 << 20))
        assert (await client.post(ask, data=large, headers=json_type)).status == 413

    in_studio(runs, use)


@pytest.mark.parametrize("name", ["nothing", "..", "%2e%2e", "..%2f..", "a%20%26%20b%2f.."])
def test_no_name_leads_out_of_the_folder(runs: Path, name: str) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        async with ClientSession(cookie_jar=client.session.cookie_jar) as session:
            from yarl import URL

            url = URL(f"{client.make_url('/')}runs/{name}/verdict", encoded=True)
            reply = await session.get(url)
            assert reply.status in (403, 404)

    in_studio(runs, use)


def test_what_is_not_there_is_said(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        for page in ("nonsense", "leaf?path=x", "sample?id=x"):
            assert (await client.get(f"/runs/a%20%26%20b/{page}")).status == 404
        assert (await client.get("/static/../app.py")).status == 404

    in_studio(runs, use)


def test_read_only_starts_no_model(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        reply = await client.post(
            "/runs/a%20%26%20b/chat/base", json={"messages": [{"role": "user", "content": "hi"}]}
        )
        assert reply.status == 403
        assert "only reads" in await (await client.get("/runs/a%20%26%20b/chat")).text()

    in_studio(runs, use, read_only=True)


def test_a_study_is_listed_and_shown(runs: Path) -> None:
    write_study(runs / "r-frontier")

    async def use(client: Client) -> None:
        await enter(client)
        assert "/frontier?study=r-frontier" in await (await client.get("/")).text()
        text = await (await client.get("/frontier?study=r-frontier")).text()
        assert "0.700 [0.600, 0.800]" in text
        assert "<script>alert" not in text
        assert "<img" not in text
        for name in ("../runs/r-frontier", "a & b", ""):
            assert (await client.get("/frontier", params={"study": name})).status == 404
        (runs / "r-frontier" / "frontier.json").write_text("{")
        text = await (await client.get("/frontier?study=r-frontier")).text()
        assert "frontier.json: damaged" in text

    in_studio(runs, use, read_only=True)


def test_two_models_are_compared_over_their_common_items(runs: Path) -> None:
    shutil.copytree(runs / "a & b", runs / "c")

    async def use(client: Client) -> None:
        await enter(client)
        asked = {"before": "a & b@base", "after": "c"}
        text = await (await client.get("/compare", params=asked)).text()
        assert "+1.00" in text
        assert "<b>c@skills</b>" not in text
        assert "✓ right now" in text
        assert "<script>alert" not in text
        assert "<img" not in text
        same = await (await client.get("/compare", params={"before": "c", "after": "c"})).text()
        assert "None: both are right and wrong in the same items." in same
        assert (await client.get("/compare", params={"before": "x", "after": "../c"})).status == 200

    in_studio(runs, use, read_only=True)


def test_the_passages_of_a_question_are_shown(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        page = "/runs/a%20%26%20b/chat/passages"
        text = await (await client.post(page, json={"text": "Where is the baker?"})).text()
        assert "The baker lives" in text
        assert "<script>alert" not in text
        text = await (await client.post(page, json={"text": "zzz"})).text()
        assert "No passage shares a word" in text

    in_studio(runs, use)


def test_what_taught_an_answer_is_found(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        reply = await client.post("/runs/a%20%26%20b/chat/why", json={"text": "alert x 2"})
        text = await reply.text()
        assert "ROUGE-L" in text
        assert "<script" not in text

    in_studio(runs, use)


def test_all_answers_that_turned_are_listed(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        page = "/runs/a%20%26%20b/turned?before=base&after=skills"
        first = await (await client.get(page)).text()
        assert "<b>1</b> answers turned" in first
        assert await (await client.get(f"{page}&page=9")).text() == first
        for more, num in (("way=learned", 1), ("way=forgotten", 0), ("exam=none", 0)):
            text = await (await client.get(f"{page}&{more}&page=x")).text()
            assert f"<b>{num}</b> answers turned" in text
        assert (await client.get(page.replace("skills", "none"))).status == 404

    in_studio(runs, use)


def test_a_sample_shows_what_is_most_like_it(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        text = await (await client.get("/runs/a%20%26%20b/sample?id=1")).text()
        assert "Most like it" in text
        # Sample 1 was rejected, so neither it nor sample 2 is among its kept neighbours.
        assert text.count("ROUGE-L 0.") + text.count("ROUGE-L 1.") == 1

    in_studio(runs, use)


def test_a_damaged_run_is_one_line(runs: Path) -> None:
    for done in runs.glob("*/steps/scores/*/done.json"):
        done.write_text("{")

    async def use(client: Client) -> None:
        await enter(client)
        assert "damaged" in await (await client.get("/")).text()
        text = await (await client.get("/runs/a%20%26%20b/exams")).text()
        assert "done.json: damaged" in text

    in_studio(runs, use)


async def decide(client: Client, sample_id: str, **said: str) -> str:
    """Decide on a sample of the run."""
    sample = next(s for s in samples() if s.id == sample_id)
    body = {"sample": sample_id, "key": review_key(sample), **said}
    reply = await client.post("/runs/a%20%26%20b/review", json=body)
    text = await reply.text()
    assert reply.status == 200, text
    return text


def test_a_decision_is_written_down_and_shown(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        assert "✓ accepted by anna" in await decide(client, "0", verdict="accepted")
        shown = await decide(client, "1", verdict="edited", question="Who?", answer="Zorbo.")
        assert "Zorbo." in shown
        assert "<script>alert" not in shown
        text = await (await client.get("/runs/a%20%26%20b/samples?review=edited")).text()
        assert "<b>1</b> samples" in text
        text = await (await client.get("/runs/a%20%26%20b/samples?review=open")).text()
        assert "<b>1</b> samples" in text
        text = await (await client.get("/runs/a%20%26%20b/reviews")).text()
        assert "anna reviewed 2 samples" in text
        assert "✎" not in await decide(client, "1", verdict="withdrawn")

    in_studio(runs, use, reviewer="anna")
    found = read_decisions(runs / "a & b" / "reviews" / "anna.jsonl")
    assert [d.verdict for d in found] == ["accepted", "edited", "withdrawn"]


def test_a_wrong_decision_is_refused_and_nothing_is_written(runs: Path) -> None:
    key = review_key(samples()[0])

    async def status(client: Client, body: dict[str, object]) -> int:
        return (await client.post("/runs/a%20%26%20b/review", json=body)).status

    async def use(client: Client) -> None:
        await enter(client)
        whole = {"sample": "0", "key": key, "verdict": "accepted"}
        assert await status(client, {**whole, "key": "another"}) == 409
        assert await status(client, {**whole, "sample": "none"}) == 409
        assert await status(client, {**whole, "verdict": "maybe"}) == 422
        assert await status(client, {**whole, "verdict": "rejected"}) == 422
        assert await status(client, {**whole, "verdict": "edited", "answer": "x"}) == 422
        assert await status(client, {**whole, "more": 1}) == 422
        assert await status(client, {**whole, "reason": "x" * 501}) == 422
        assert (await client.post("/runs/a%20%26%20b/review", data=b"x")).status == 415

    in_studio(runs, use, reviewer="anna")

    async def read(client: Client) -> None:
        await enter(client)
        assert await status(client, {"sample": "0", "key": key, "verdict": "accepted"}) == 403
        assert "data-do" not in await (await client.get("/runs/a%20%26%20b/samples")).text()

    in_studio(runs, read, read_only=True, reviewer="anna")
    assert not (runs / "a & b" / "reviews").exists()


def test_a_number_no_page_has_and_letters_no_index_takes_are_no_fault(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        for asked in (
            "page=" + "9" * 400,
            "page=999999999",
            "words=%00",
            "words=a%00b",
            "words=%22*(",
        ):
            reply = await client.get(f"/runs/a%20%26%20b/samples?{asked}")
            assert reply.status == 200, (asked, await reply.text())

    in_studio(runs, use)


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"garbage" * 500])
def test_a_damaged_index_is_told_and_then_made_anew(runs: Path, content: bytes) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        assert (await client.get("/runs/a%20%26%20b/samples")).status == 200
        index = next((runs.parent / "cache" / "samples").glob("*.sqlite"))
        index.write_bytes(content)
        told = await client.get("/runs/a%20%26%20b/samples")
        assert told.status == 404
        assert "repeat what you did: it is made anew" in await told.text()
        assert (await client.get("/runs/a%20%26%20b/samples")).status == 200

    in_studio(runs, use)


def test_a_decision_that_cannot_be_written_is_told_in_one_line(runs: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        (runs / "a & b" / "reviews" / "anna.jsonl").mkdir(parents=True)
        body = {"sample": "1", "key": review_key(samples()[1]), "verdict": "accepted"}
        reply = await client.post("/runs/a%20%26%20b/review", json=body)
        assert reply.status == 500
        assert (await reply.text()).startswith("Is a directory (")

    in_studio(runs, use, reviewer="anna")
