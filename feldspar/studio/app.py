"""The studio: a run's views live on this machine, a chat with its models, and who may use it.

/                       the runs of a folder, and the recipes beside it
/plan                   a recipe: what its run costs; /plan/figures the figures
/compare                two models of the folder's runs
/frontier               a study of several arms
/taxonomy, /leaf        the leaves, and the form of one; POST checks, saves, adds documents, asks
                        for drafts
/recipes                POST: write a recipe that comes with Feldspar
/runs                   POST: start a recipe's run; /runs/NAME/stop ends it
/runs/NAME/PAGE         verdict, leaves, leaf, samples, sample, reviews, training, exams,
                        turned, preference, live, chat, steps
/runs/NAME/chat/WHO     POST: an answer of `base`, `taught` or `retrieved`, as it comes
/runs/NAME/review       POST: a decision on a sample; gives the sample as it is then shown
/runs/NAME/report.html  the same views as one file
/static/FILE            our style sheet and scripts
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from aiohttp import web
from markupsafe import Markup

from feldspar.errors import FeldsparError, RunError, TaxonomyError, disk_fault
from feldspar.progress_file import read_run_state
from feldspar.serve.guard import guard
from feldspar.studio.access import only_with, with_headers
from feldspar.studio.chat_models import ChatModels
from feldspar.studio.chat_pages import ChatPages
from feldspar.studio.compare_pages import ComparePages
from feldspar.studio.leaf_drafts import LeafDrafts
from feldspar.studio.leaf_files import LeafFiles
from feldspar.studio.leaf_pages import LeafPages
from feldspar.studio.plan_pages import PlanPages
from feldspar.studio.plan_told import Planner
from feldspar.studio.project import Project
from feldspar.studio.recipe_pages import OFFERED, RecipePages
from feldspar.studio.review_pages import ReviewPages
from feldspar.studio.run_cache import OpenRun, RunCache
from feldspar.studio.run_control import RunControl
from feldspar.studio.shown import ShownPage
from feldspar.studio.study_pages import StudyPages, study_names
from feldspar.views.charts import warm_up
from feldspar.views.exams import turned_of
from feldspar.views.leaves import leaf_page_of
from feldspar.views.links import Link, ViewPlace, studio_link
from feldspar.views.live import RunControls
from feldspar.views.pages import REVIEW_STATES, Pages, asset, render
from feldspar.views.report import render_report
from feldspar.views.reviews import reviews_of
from feldspar.views.sample_index import SampleQuery
from feldspar.views.samples import SampleReader

T = TypeVar("T")

MAX_BODY_BYTES = 1 << 20
MAX_QUERY_LETTERS = 500
NUM_THREADS = 4
LIVE_SECONDS = 2.0
PAUSES_SECONDS = (0.2, 0.6)
"""Before a run that is written just now is read again."""
NAVIGATION = (
    *(("verdict", "Verdict"), ("leaves", "Leaves"), ("samples", "Samples")),
    ("reviews", "Reviews"),
    *(("training", "Training"), ("exams", "Exams"), ("preference", "Preference")),
    *(("live", "Live"), ("chat", "Chat"), ("steps", "Steps")),
)
_KINDS = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
_FILES = (
    "page.css",
    "studio.js",
    "review.js",
    "author.js",
    "htmx.min.js",
    "icon.svg",
    "LICENSE-htmx.txt",
)
_UNCHANGED_PAGES = ("verdict", "leaves", "training", "exams", "preference", "steps")
"""That show nothing but finished steps: drawn once for each state of a run."""


def make_studio(
    folder: Path, token: str, *, read_only: bool = False, reviewer: str = ""
) -> web.Application:
    """The app that serves the runs of `folder` to whoever has the token.

    `reviewer`: under whose name samples are reviewed; nobody reviews without one, or read-only.

    Errors: 403 without the token or from another site's page, 404 no such run or page, 413 a body
    of more than MAX_BODY_BYTES, 415 a body that is not JSON.
    """
    reviewer = "" if read_only else reviewer
    project = Project(folder)
    control = RunControl(project)
    studio = _Studio(RunCache(folder), reviewer, project, None if read_only else control)
    app = web.Application(
        client_max_size=MAX_BODY_BYTES,
        middlewares=[with_headers, guard(), only_with(token), _errors_as_pages],
    )
    models = ChatModels()
    chat = ChatPages(studio.runs, models, read_only=read_only)
    plan = PlanPages(project, control, Planner(project.runs), read_only=read_only)
    leaf = LeafPages(LeafFiles(project), LeafDrafts(project), reviewer)
    app.router.add_get("/", studio.home)
    app.router.add_get("/compare", studio.around(ComparePages(studio.runs).page))
    app.router.add_get("/frontier", studio.around(StudyPages(folder).page))
    app.router.add_get("/taxonomy", studio.around(leaf.listing))
    app.router.add_get("/leaf", studio.around(leaf.page))
    app.router.add_post("/leaf/check", leaf.check)
    app.router.add_post("/leaf/save", leaf.save)
    app.router.add_post("/leaf/documents", leaf.document)
    app.router.add_post("/leaf/drafts", leaf.draft)
    app.router.add_get("/plan", studio.around(plan.page))
    app.router.add_get("/plan/figures", plan.figures)
    app.router.add_post("/recipes", RecipePages(project, read_only=read_only).write)
    app.router.add_post("/runs", studio.changing(plan.start))
    app.router.add_post("/runs/{run}/stop", studio.changing(plan.stop))
    app.router.add_get("/runs/{run}/starting", studio.around(plan.starting))
    app.router.add_get("/runs/{run}/starting/state", plan.state)
    app.router.add_get("/static/{file}", _show_file)
    app.router.add_get("/runs/{run}/report.html", studio.report)
    app.router.add_get("/runs/{run}/chat", studio.around(chat.page, "chat"))
    app.router.add_post("/runs/{run}/chat/why", chat.why)
    app.router.add_post("/runs/{run}/chat/passages", chat.passages)
    app.router.add_post("/runs/{run}/chat/{who}", chat.answer)
    app.router.add_post("/runs/{run}/review", ReviewPages(studio.runs, reviewer).decide)
    app.router.add_get("/runs/{run}/{page}", studio.run_page)

    async def running(_: web.Application) -> AsyncIterator[None]:
        # The first chart of a process takes seconds: it is drawn before it is asked for.
        studio.pool.submit(warm_up)
        async with models:
            yield
        studio.pool.shutdown(wait=False, cancel_futures=True)

    app.cleanup_ctx.append(running)
    return app


class _Studio:
    def __init__(
        self, runs: RunCache, reviewer: str, project: Project, control: RunControl | None
    ) -> None:
        self.runs = runs
        self._reviewer, self._project, self._control = reviewer, project, control
        self.pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="studio")
        self._drawn_live: dict[str, tuple[float, asyncio.Task[str]]] = {}
        self._drawn: dict[tuple[str, str], tuple[OpenRun, ShownPage]] = {}

    async def home(self, _: web.Request) -> web.Response:
        cards = await self._in_thread(self.runs.cards)
        shown = [
            {**card._asdict(), "link": studio_link(card.name)(ViewPlace("verdict"))}
            for card in cards
        ]
        body = render(
            "home.html.j2",
            runs=shown,
            folder=str(self.runs.folder),
            recipes=await self._in_thread(self._project.recipes),
            offered=OFFERED,
            studies=await self._in_thread(lambda: study_names(self.runs.folder)),
            num_leaves=await self._in_thread(self._num_leaves),
            project=str(self._project.folder),
            read_only=self._control is None,
        )
        return _page(ShownPage("Runs", body))

    def _num_leaves(self) -> int:
        return sum(len(t.paths) for t in LeafFiles(self._project).leaves())

    async def run_page(self, request: web.Request) -> web.Response:
        name, page = request.match_info["run"], request.match_info["page"]
        if page == "live":
            return await self._live_page(name)
        asked = {key: value[:MAX_QUERY_LETTERS] for key, value in request.query.items()}
        shown = await self._in_thread(lambda: self._shown(name, page, asked))
        return _page(shown, name, page)

    async def _live_page(self, name: str) -> web.Response:
        """One drawing for all who look on within `LIVE_SECONDS`, also while it is made."""
        drawn_at, drawing = self._drawn_live.get(name, (-math.inf, None))
        now = time.monotonic()
        if drawing is None or now - drawn_at > LIVE_SECONDS:
            drawing = asyncio.create_task(self._draw_live(name))
            self._drawn_live[name] = now, drawing
        # Another browser waits for it too, though this one may go.
        text = await asyncio.shield(drawing)
        return web.Response(text=text, content_type="text/html")

    async def _draw_live(self, name: str) -> str:
        shown = await self._in_thread(lambda: self._shown(name, "live", {}))
        return _page_text(shown, name, "live")

    async def report(self, request: web.Request) -> web.Response:
        run = self.runs.open(request.match_info["run"])
        text = await self._in_thread(lambda: render_report(run.files))
        return web.Response(
            text=text,
            content_type="text/html",
            headers={"Content-Disposition": 'attachment; filename="report.html"'},
        )

    def around(
        self, make: Callable[[web.Request], ShownPage], page: str = ""
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            shown = await self._in_thread(lambda: make(request))
            return _page(shown, request.match_info["run"] if page else "", page)

        return handler

    def changing(
        self, work: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """`work` starts or stops a run: its live page is not the one that was drawn before."""

        async def handler(request: web.Request) -> web.Response:
            try:
                return await work(request)
            finally:
                self._drawn_live.clear()

        return handler

    def _shown(self, name: str, page: str, asked: dict[str, str]) -> ShownPage:
        """Again after a moment where a run that is written just now cannot be read: a step may
        stand between its rows and the file that names them."""
        for pause in PAUSES_SECONDS:
            try:
                return self._shown_now(name, page, asked)
            except RunError:
                said = read_run_state(self.runs.folder / name)
                if said is None or not said.may_go_on:
                    raise
                time.sleep(pause)
        return self._shown_now(name, page, asked)

    def _shown_now(self, name: str, page: str, asked: dict[str, str]) -> ShownPage:
        run = self.runs.open(name)
        if page == "live":
            views = Pages(run.files, studio_link(name), is_live=True)
            return ShownPage("Live", views.live(self._controls(name)))
        if page == "reviews":
            view = reviews_of(run.files, run.index(), run.reviews())
            views = Pages(run.files, studio_link(name), is_live=True)
            return ShownPage("Reviews", views.reviews(view, self._controls(name)))
        is_counted = page != "verdict" or run.summary_by_now() is not None
        if page not in _UNCHANGED_PAGES or not is_counted:
            return _draw(run, page, asked, self._reviewer)
        known = self._drawn.get((name, page))
        if known is None or known[0] is not run:
            known = self._drawn[name, page] = (run, _draw(run, page, asked))
        return known[1]

    def _controls(self, name: str) -> RunControls | None:
        return self._control.controls(name) if self._control else None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, work)


def _draw(run: OpenRun, page: str, asked: dict[str, str], reviewer: str = "") -> ShownPage:
    """Raises web.HTTPNotFound where there is no such page."""
    views = Pages(run.files, studio_link(run.files.name), is_live=True)
    match page:
        case "verdict":
            return ShownPage(run.files.name, views.verdict(run.summary_by_now()))
        case "leaves":
            return ShownPage("Leaves", views.leaves())
        case "leaf":
            return _leaf(run, views, asked)
        case "samples":
            return _samples(run, views, asked, reviewer)
        case "sample":
            return _sample(run, views, asked, reviewer)
        case "training":
            return ShownPage("Training", views.training())
        case "exams":
            return ShownPage("Exams", views.exams())
        case "turned":
            return _turned(run, views, asked)
        case "preference":
            return ShownPage("Preference", views.preference())
        case "steps":
            return ShownPage("Steps", views.cost())
    raise web.HTTPNotFound(reason=f"no page {page!r}")


def _turned(run: OpenRun, views: Pages, asked: dict[str, str]) -> ShownPage:
    step = (asked.get("before", ""), asked.get("after", ""))
    page = turned_of(
        run.files, step, asked.get("exam", ""), asked.get("way", ""), _number(asked.get("page"))
    )
    if page is None:
        raise web.HTTPNotFound(reason="the run has not scored these two checkpoints")
    return ShownPage("Answers that turned", views.turned(page))


def _leaf(run: OpenRun, views: Pages, asked: dict[str, str]) -> ShownPage:
    path = asked.get("path", "")
    page = leaf_page_of(run.files, path, run.summary())
    if page is None:
        raise web.HTTPNotFound(reason="the run has no such leaf")
    return ShownPage(path, views.leaf(page))


def _samples(run: OpenRun, views: Pages, asked: dict[str, str], reviewer: str) -> ShownPage:
    index = run.index()
    if index is None:
        return ShownPage("Samples", Markup("<p>No samples are written yet.</p>"))
    query = SampleQuery(
        words=asked.get("words", ""),
        leaf=asked.get("leaf", ""),
        state=asked.get("state", ""),
        reason=asked.get("reason", ""),
        chunk=asked.get("chunk", ""),
        review=next((state for state, _ in REVIEW_STATES if state == asked.get("review")), ""),
        page=_number(asked.get("page")),
        after=_number(asked.get("after"), 0),
    )
    reviews = run.reviews()
    found = index.find(query, reviews)
    return ShownPage("Samples", views.samples(found, run.reasons(), reviews, reviewer))


def _number(asked: str | None, least: int = 1) -> int:
    """Of a page or a place; the least where it is none."""
    is_one = asked is not None and asked.isascii() and asked.isdigit() and len(asked) < 10
    return max(least, int(asked or least)) if is_one else least


def _sample(run: OpenRun, views: Pages, asked: dict[str, str], reviewer: str) -> ShownPage:
    index = run.index()
    sample = index.get(asked.get("id", "")) if index else None
    if sample is None:
        raise web.HTTPNotFound(reason="the run has no such sample")
    view = SampleReader(run.files).view(sample, index, has_nearest=True)
    return ShownPage("Sample", views.sample(view, run.reviews(), reviewer))


def _page(
    shown: ShownPage, run_name: str = "", current: str = "", status: int = 200
) -> web.Response:
    text = _page_text(shown, run_name, current)
    return web.Response(text=text, content_type="text/html", status=status)


def _page_text(shown: ShownPage, run_name: str, current: str) -> str:
    link: Link = studio_link(run_name)
    text = render(
        "studio.html.j2",
        title=shown.title,
        body=shown.body,
        run_name=run_name,
        current={"leaf": "leaves", "sample": "samples", "turned": "exams"}.get(current, current),
        nav=NAVIGATION,
        link=link,
    )
    return str(text)


async def _show_file(request: web.Request) -> web.Response:
    name = request.match_info["file"]
    if name not in _FILES:
        raise web.HTTPNotFound(reason="no such file")
    kind = _KINDS[Path(name).suffix]
    return web.Response(
        body=asset(name),
        content_type=kind,
        charset="utf-8",
        headers={"Cache-Control": "private, max-age=300"},
    )


@web.middleware
async def _errors_as_pages(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except (RunError, TaxonomyError) as error:
        return _problem(request, "This cannot be shown", str(error), 404)
    except FeldsparError as error:
        return _problem(request, "This cannot be shown", str(error), 500)
    except OSError as error:
        return _problem(request, "This cannot be shown", disk_fault(error), 500)
    except web.HTTPNotFound as error:
        return _problem(request, "Not found", error.reason, 404)


def _problem(request: web.Request, title: str, message: str, status: int) -> web.Response:
    """A page; to a script, which posts, the message alone."""
    if request.method == "POST":
        return web.Response(text=message, status=status)
    return _page(ShownPage(title, render("problem.html.j2", message=message)), status=status)
