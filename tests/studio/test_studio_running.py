"""Runs are planned, started, stopped and gone on with from the page, and live without it."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Literal, cast

import pytest
from by_hand import do_step
from markupsafe import Markup
from studio_client import Client, enter, in_studio
from tiny_run import RECIPE, write_recipe

from feldspar.config import Recipe
from feldspar.errors import FeldsparError, RunError
from feldspar.files import write_json
from feldspar.progress_file import PROGRESS_FILE, RunState, State, read_run_state
from feldspar.runs import Run
from feldspar.studio.plan_pages import PlanPages, asked_settings
from feldspar.studio.plan_told import Planner, ToldCheck, ToldPlan
from feldspar.studio.project import Project
from feldspar.studio.run_control import LaunchRequest, LaunchState, RunControl
from feldspar.views.links import studio_link
from feldspar.views.live import PLANNED, RunControls
from feldspar.views.pages import Pages, render

PATIENCE_SECONDS = 600
NAMED = Recipe.model_validate({"name": "tiny", "taxonomy": {"path": "t"}, "student": {"base": "b"}})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_recipe(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "broken.toml").write_text("what = <b>")
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "runs").mkdir()
    (tmp_path.parent / "outside.toml").write_text(RECIPE)
    return tmp_path


def test_the_recipes_of_a_project_are_listed(project: Path) -> None:
    found = Project(project / "runs").recipes()
    assert [(r.path, r.run_name) for r in found] == [
        ("recipe.toml", "tiny"),
        ("recipes/broken.toml", ""),
    ]
    assert "not TOML" in found[1].fault


def test_so_is_that_of_a_project_in_a_folder_beside_the_runs(project: Path) -> None:
    (project / "mine").mkdir()
    (project / "recipe.toml").rename(project / "mine" / "recipe.toml")
    (project / "recipes" / "broken.toml").rename(project / "recipes" / "recipe.toml")
    found = Project(project / "runs").recipes()
    assert [r.path for r in found] == ["recipes/recipe.toml", "mine/recipe.toml"]
    assert Project(project / "runs").recipe_path("mine/recipe.toml").parent == project / "mine"


@pytest.mark.parametrize(
    "name", ["../outside.toml", "pyproject.toml", "", "/etc/passwd", "./recipe.toml"]
)
def test_no_recipe_lies_outside_the_project(project: Path, name: str) -> None:
    with pytest.raises(RunError, match="no recipe"):
        Project(project / "runs").recipe_path(name)


def test_a_form_gives_settings(project: Path) -> None:
    asked = {"teacher.prompt_price": " 2.5 ", "settings": "seed = 3\n\n train.seed=1", "else": "x"}
    assert asked_settings(asked) == ["teacher.prompt_price=2.5", "seed = 3", "train.seed=1"]


def test_what_cannot_be_started_is_refused_before_anything_is_written(project: Path) -> None:
    control = RunControl(Project(project / "runs"))
    for recipe, setting in (
        ("recipes/broken.toml", ""),
        ("recipe.toml", "--help"),
        ("recipe.toml", "nonsense.key = 1"),
        ("recipe.toml", 'name = "../../elsewhere"'),
    ):
        with pytest.raises(FeldsparError):
            control.start(LaunchRequest(recipe=recipe, settings=[setting] if setting else []))
    assert list((project / "runs").iterdir()) == []
    with pytest.raises(RunError, match="does not run"):
        control.stop("tiny")


def test_a_run_that_another_process_writes_is_not_started(project: Path) -> None:
    control = RunControl(Project(project / "runs"))
    with Run(project / "runs" / "tiny", NAMED), pytest.raises(RunError, match="runs already"):
        control.start(LaunchRequest(recipe="recipe.toml"))


@pytest.mark.parametrize(
    ("state", "is_started"), [("ended", True), ("interrupted", True), ("running", False)]
)
def test_a_run_whose_process_is_about_to_go_is_started_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, state: str, is_started: bool
) -> None:
    """It has said its last word, and the page offers the next start."""
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    begun: list[subprocess.Popen[bytes]] = []

    def process(*_: object) -> subprocess.Popen[bytes]:
        begun.append(subprocess.Popen(waits, stdin=subprocess.PIPE))
        return begun[-1]

    def let_go(child: subprocess.Popen[bytes]) -> None:
        assert child.stdin is not None
        child.stdin.close()

    monkeypatch.setattr(RunControl, "_process", process)
    control = RunControl(Project(project / "runs"))
    request = LaunchRequest(recipe="recipe.toml")
    control.start(request)
    said = RunState(pid=begun[0].pid, began_at=time.time(), told_at=0, state=cast("State", state))
    write_json(project / "runs" / "tiny" / PROGRESS_FILE, asdict(said))
    leaving = threading.Timer(0.3, let_go, begun[:1])
    leaving.start()
    try:
        if is_started:
            assert control.start(request) == "tiny"
        else:
            with pytest.raises(RunError, match="runs already"):
                control.start(request)
    finally:
        leaving.join()
        for child in begun[1:]:
            let_go(child)
        for child in begun:
            child.wait()
    assert len(begun) == 1 + is_started


def test_a_run_on_another_machine_is_not_stopped_from_here(project: Path) -> None:
    """Its number may be another process of this one."""
    control = RunControl(Project(project / "runs"))
    with Run(project / "runs" / "tiny", NAMED) as run:
        file = run.path / PROGRESS_FILE
        said = json.loads(file.read_text())
        file.write_text(json.dumps(said | {"host": "node7"}))
        assert control.controls("tiny") == RunControls()
        with pytest.raises(RunError, match="tiny runs on node7; stop it there"):
            control.stop("tiny")


def test_all_who_look_on_see_one_drawing_until_something_is_started(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[None] = []
    draw = Pages.live

    def count(self: Pages, controls: RunControls | None) -> Markup:
        drawn.append(None)
        return draw(self, controls)

    monkeypatch.setattr(Pages, "live", count)

    async def use(client: Client) -> None:
        await enter(client)
        replies = await asyncio.gather(*(client.get("/runs/tiny/live") for _ in range(9)))
        assert len({await reply.text() for reply in replies}) == 1
        assert len(drawn) == 1
        assert (await client.post("/runs", json={"recipe": "no.toml"})).status == 409
        await client.get("/runs/tiny/live")
        assert len(drawn) == 2

    with Run(project / "runs" / "tiny", NAMED) as run:
        do_step(run, "leaves", lambda: [])
        in_studio(project / "runs", use)


@pytest.mark.slow
def test_a_studio_that_only_reads_starts_and_stops_nothing(project: Path) -> None:
    with Run(project / "runs" / "tiny", NAMED) as run:
        do_step(run, "leaves", lambda: [])

    async def use(client: Client) -> None:
        await enter(client)
        assert (await client.post("/runs", json={"recipe": "recipe.toml"})).status == 403
        assert (await client.post("/runs/tiny/stop", json={})).status == 403
        page = await (await client.get("/plan?recipe=recipe.toml")).text()
        assert "only reads" in page
        assert "data-post" not in page
        assert "data-post" not in await (await client.get("/runs/tiny/live")).text()

    in_studio(project / "runs", use, read_only=True)


@pytest.mark.parametrize(
    ("state", "asks_again"),
    [("starting", True), ("running", True), ("ended", False), ("failed", False)],
)
def test_where_a_start_is_waited_for_is_asked_again_until_it_has_ended(
    state: Literal["starting", "running", "ended", "failed"], asks_again: bool
) -> None:
    """A run that is seen running and ends before it is looked at again is not waited for."""
    launch = LaunchState(state, "")
    told = {"launch": launch, "name": "tiny", "link": studio_link("tiny")}
    page = str(render("launch.html.j2", **told, leads_on=True))
    assert ("hx-get" in page) is asks_again
    assert ("state?leads=on" in page) is asks_again
    # A plan that is looked at meanwhile stays.
    assert "leads" not in str(render("launch.html.j2", **told, leads_on=False))


def test_only_who_waits_for_a_start_is_led_to_its_page(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunControl, "launch_state", lambda *_: LaunchState("running", ""))

    async def use(client: Client) -> None:
        await enter(client)
        plan = await (await client.get("/plan?recipe=recipe.toml")).text()
        assert 'starting/state"' in plan
        for place, is_led in (("state", False), ("state?leads=on", True)):
            reply = await client.get(f"/runs/tiny/starting/{place}")
            assert ("HX-Redirect" in reply.headers) is is_led

    in_studio(project / "runs", use)


def test_what_a_recipe_says_itself_is_no_setting(project: Path) -> None:
    own = {"name": "tiny", "student.base": "world:student"}
    asked = {"name": "tiny", "student.base": "b", "teacher.endpoint": ""}
    assert asked_settings(asked, own) == ["student.base=b"]


def test_settings_of_several_lines_come_to_the_plan_as_lines(project: Path) -> None:
    async def use(client: Client) -> None:
        await enter(client)
        page = "/plan?recipe=recipe.toml&settings=seed+%3D+3%0Atrain.batch_samples%3D8&name=other"
        text = await (await client.get(page)).text()
        figures = text.partition("/plan/figures?")[2].partition('"')[0]
        assert "3%0Atrain.batch_samples" in figures
        assert "Plan: other" in text

    in_studio(project / "runs", use)


def test_only_recipes_that_are_offered_are_written(project: Path) -> None:
    before = sorted(project.rglob("*"))

    async def use(client: Client) -> None:
        await enter(client)
        assert "Take quickstart" in await (await client.get("/")).text()
        for name in ("../x", "--help", "paper", ""):
            assert (await client.post("/recipes", json={"recipe": name})).status == 422

    async def read(client: Client) -> None:
        await enter(client)
        assert "Take quickstart" not in await (await client.get("/")).text()
        assert (await client.post("/recipes", json={"recipe": "quickstart"})).status == 403

    in_studio(project / "runs", use)
    in_studio(project / "runs", read, read_only=True)
    assert sorted(project.rglob("*")) == before


def test_pages_of_recipes_show_hostile_text_as_text(project: Path) -> None:
    hostile = "<script>alert(1)</script>"
    (project / "hostile.toml").write_text(f"# {hostile}\nname = 'x'\n[student]\nbase = 'b'\n")

    async def use(client: Client) -> None:
        await enter(client)
        for page in (
            "/",
            "/plan?recipe=hostile.toml",
            f"/plan?recipe=hostile.toml&settings={hostile}",
            "/plan?recipe=recipes/broken.toml",
            f"/plan?recipe={hostile}",
        ):
            text = await (await client.get(page)).text()
            assert "<script>alert" not in text, page
        reply = await client.post("/runs", json={"recipe": "recipes/broken.toml"})
        assert reply.status == 422
        assert "not TOML" in await reply.text()

    in_studio(project / "runs", use)


@pytest.mark.slow
def test_a_plan_has_the_prices_that_were_given(
    project: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(cache))

    async def use(client: Client) -> None:
        await enter(client)
        asked = {"recipe": "recipe.toml", "teacher.prompt_price": "1000"}
        text = await (await client.get("/plan/figures", params=asked)).text()
        assert "no prices are given" not in text
        assert "knowledge-short" in text
        text = await (
            await client.get("/plan/figures", params={"recipe": "recipes/broken.toml"})
        ).text()
        assert "not TOML" in text

    in_studio(project / "runs", use)


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE_SECONDS)
def test_a_run_is_started_stopped_and_gone_on_with(
    project: Path, tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(cache))
    run = project / "runs" / "tiny"

    async def until(client: Client, state: str) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert time.monotonic() < deadline, f"never {state}: {(run / 'run.log').read_text()}"
            text = await (await client.get("/runs/tiny/live")).text()
            if f">{state}</span>" in text:
                return text
            await asyncio.sleep(0.2)

    async def begin(client: Client) -> None:
        await enter(client)
        reply = await client.post("/runs", json={"recipe": "recipe.toml"})
        assert await reply.json() == {"run": "tiny"}
        assert (await client.post("/runs", json={"recipe": "recipe.toml"})).status == 409
        assert 'data-post="/runs/tiny/stop"' in await until(client, "running")

    async def end(client: Client) -> None:
        # Another studio: the run has lived on without the first.
        await enter(client)
        await until(client, "running")
        assert (await client.post("/runs/tiny/stop", json={})).status == 200
        text = await until(client, "interrupted")
        assert "Go on" in text
        request = json.loads((run / "launch.json").read_text())
        assert (await client.post("/runs", json=request)).status == 200
        await until(client, "ended")

    try:
        in_studio(project / "runs", begin)
        said = read_run_state(run)
        assert said is not None
        assert said.state == "running"
        in_studio(project / "runs", end)
    finally:
        # It would outlive the test as well.
        said = read_run_state(run)
        if said is not None and said.state == "running":
            with contextlib.suppress(ProcessLookupError):
                os.kill(said.pid, signal.SIGKILL)
    assert (run / "report.html").exists()
    assert "interrupted; nothing is lost" in (run / "run.log").read_text()


def test_a_run_whose_folder_was_deleted_has_no_last_lines(project: Path) -> None:
    control = RunControl(Project(project / "runs"))
    control.start(LaunchRequest(recipe="recipe.toml", settings=["student.base=nowhere"]))
    process = control._started["tiny"].process
    assert process.wait(60)
    shutil.rmtree(project / "runs" / "tiny")
    assert control.launch_state("tiny") == LaunchState("failed", "")


def test_what_an_earlier_start_foresaw_is_not_shown_for_another(project: Path) -> None:
    around = Project(project / "runs")
    control = RunControl(around)
    pages = PlanPages(around, control, Planner(around.runs), read_only=False)
    asked = LaunchRequest(recipe="recipe.toml", settings=["student.base=nowhere"])
    for _ in range(2):
        assert pages._start(asked) == "tiny"
        assert control._started["tiny"].process.wait(60)
        assert not (project / "runs" / "tiny" / PLANNED).exists()
        (project / "runs" / "tiny" / PLANNED).write_text("{}")


@pytest.mark.parametrize(("is_wrong", "age", "num_asked"), [
    (False, 30.0, 1), (False, 90.0, 2), (True, 2.0, 1), (True, 30.0, 2),
])  # fmt: skip
def test_a_plan_is_asked_for_again_once_it_is_old(
    project: Path, monkeypatch: pytest.MonkeyPatch, is_wrong: bool, age: float, num_asked: int
) -> None:
    """A teacher that was started meanwhile is seen, also where the recipe is the same."""
    asked: list[float] = []
    now = 0.0
    told = ToldPlan(
        calls=[], phases=[], memory=[], num_parameters=0, teacher_hours=None, training_hours=None,
        preference_hours=None, not_included=[], cost=0, disk_bytes=0, free_bytes=0, warnings=[],
        checks=[ToldCheck(name="teacher", state="wrong" if is_wrong else "ok", says="")],
    )  # fmt: skip

    async def ask(*_: object) -> ToldPlan:
        asked.append(now)
        return told

    planner = Planner(project / "runs")
    monkeypatch.setattr(planner, "_ask", ask)
    monkeypatch.setattr("feldspar.studio.plan_told.time.monotonic", lambda: now)

    async def use() -> None:
        nonlocal now
        await planner.plan(project / "recipe.toml", [])
        now = age
        await planner.plan(project / "recipe.toml", [])

    asyncio.run(use())
    assert len(asked) == num_asked
    # What was told last stays known: a start notes what it foresaw.
    assert planner.known(project / "recipe.toml", []) == told
