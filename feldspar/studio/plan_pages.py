"""The page of a recipe: what its run will cost, at the prices that are given, and its start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from aiohttp import web
from markupsafe import Markup
from pydantic import ValidationError

from feldspar.config import read_recipe
from feldspar.errors import FeldsparError, RecipeError, RunError
from feldspar.files import write_json
from feldspar.studio.plan_told import Planner
from feldspar.studio.project import Project
from feldspar.studio.run_control import LaunchRequest, LaunchState, RunControl
from feldspar.studio.shown import ShownPage
from feldspar.views.links import ViewPlace, studio_link
from feldspar.views.live import PLANNED, PlannedSpending
from feldspar.views.pages import render

MAX_SETTINGS_LETTERS = 4000
_NOTHING: Mapping[str, str] = {}


class PlanField(NamedTuple):
    """A setting that has a field of its own in the form."""

    key: str
    label: str
    value: str
    """As it was given, or as the recipe has it."""
    own: str
    """As the recipe has it: not a setting."""
    is_number: bool


_NAME, _BASE, _TEACHER = "name", "student.base", "teacher.endpoint"
_FIELDS = (
    (_NAME, "name of the run"),
    (_BASE, "model to teach: a folder, a hub id or a GGUF file"),
    (_TEACHER, "teacher: an address, or embedded for none"),
    ("teacher.prompt_price", "price of a million tokens read"),
    ("teacher.completion_price", "price of a million tokens written"),
    ("generate.budget.max_cost", "most to spend on the teacher"),
    ("plan.price_per_gpu_hour", "price of a GPU hour"),
)


class PlanPages:
    """Handlers of one app."""

    def __init__(
        self, project: Project, control: RunControl, planner: Planner, *, read_only: bool
    ) -> None:
        self._project, self._control, self._planner = project, control, planner
        self._read_only = read_only

    def page(self, request: web.Request) -> ShownPage:
        """The form, and a place for the figures, which take their time."""
        named = request.query.get("recipe", "")
        path = self._project.recipe_path(named)
        own = _own_values(path)
        settings = asked_settings(request.query, own)
        try:
            recipe, fault = read_recipe(path, settings), ""
        except RecipeError as error:
            recipe, fault = None, str(error)
        body = render(
            "plan.html.j2",
            recipe=named,
            name=recipe.name if recipe else "",
            fault=fault,
            text=path.read_text(encoding="utf-8", errors="replace"),
            fields=_fields(own, request.query),
            settings=request.query.get("settings", ""),
            # As it was sent: decoded, the lines of the settings would run together.
            query=request.rel_url.raw_query_string,
            state=self._state_of(recipe.name) if recipe else Markup(),
            read_only=self._read_only,
        )
        return ShownPage(f"Plan: {recipe.name}" if recipe else named, body)

    async def figures(self, request: web.Request) -> web.Response:
        """What `feldspar plan` says, as HTML."""
        path = self._project.recipe_path(request.query.get("recipe", ""))
        try:
            settings = asked_settings(request.query, _own_values(path))
            plan = await self._planner.plan(path, settings)
        except FeldsparError as error:
            body = render("plan_figures.html.j2", plan=None, fault=str(error))
        else:
            body = render("plan_figures.html.j2", plan=plan, fault="")
        return web.Response(text=str(body), content_type="text/html")

    def starting(self, request: web.Request) -> ShownPage:
        """Where a browser waits until a run that it started shows up."""
        name = request.match_info["run"]
        return ShownPage(
            name, render("starting.html.j2", state=self._state_of(name, leads_on=True))
        )

    async def state(self, request: web.Request) -> web.Response:
        """How the last start goes, as HTML; a browser that waits for it is sent on to the live page
        once it runs, and one that shows a plan is left there."""
        name = request.match_info["run"]
        leads_on = "leads" in request.query
        launch = await asyncio.to_thread(self._control.launch_state, name)
        headers = {}
        if leads_on and launch.state == "running":
            headers["HX-Redirect"] = studio_link(name)(ViewPlace("live"))
        body = str(_told(name, launch, leads_on))
        return web.Response(text=body, content_type="text/html", headers=headers)

    async def start(self, request: web.Request) -> web.Response:
        """`{"run": NAME}`. Errors: 403 read-only, 409 it runs already, 422 a wrong recipe."""
        if self._read_only:
            return web.Response(status=403, text="this studio only reads")
        try:
            asked = LaunchRequest.model_validate_json(await request.read())
            name = await asyncio.to_thread(self._start, asked)
        except ValidationError as error:
            return web.Response(status=422, text=error.errors()[0]["msg"])
        except RecipeError as error:
            return web.Response(status=422, text=str(error))
        except RunError as error:
            return web.Response(status=409, text=str(error))
        return web.json_response({"run": name})

    async def stop(self, request: web.Request) -> web.Response:
        """Errors: 403 read-only, 409 it does not run."""
        if self._read_only:
            return web.Response(status=403, text="this studio only reads")
        try:
            await asyncio.to_thread(self._control.stop, request.match_info["run"])
        except RunError as error:
            return web.Response(status=409, text=str(error))
        return web.json_response({})

    def _start(self, asked: LaunchRequest) -> str:
        """Start it; what its plan foresaw, where one was made, is noted for the live page, and what
        another start's did is taken away."""
        name = self._control.start(asked)
        path = self._project.recipe_path(asked.recipe)
        noted = self._project.runs / name / PLANNED
        plan = self._planner.known(path, asked.settings)
        if plan is None:
            noted.unlink(missing_ok=True)
        else:
            foreseen = PlannedSpending(
                calls=plan.num_calls,
                tokens=plan.prompt_tokens + plan.completion_tokens,
                cost=sum(c.cost for c in plan.calls),
            )
            write_json(noted, foreseen.model_dump())
        return name

    def _state_of(self, name: str, *, leads_on: bool = False) -> Markup:
        return _told(name, self._control.launch_state(name), leads_on)


def _told(name: str, launch: LaunchState, leads_on: bool) -> Markup:
    """`leads_on`: to the live page, once it runs."""
    link = studio_link(name)
    return render("launch.html.j2", launch=launch, name=name, link=link, leads_on=leads_on)


def asked_settings(query: Mapping[str, str], own: Mapping[str, str] = _NOTHING) -> list[str]:
    """The settings of a form: its own fields that say something other than the recipe, then one a
    line."""
    given = {key: query.get(key, "").strip() for key, _ in _FIELDS}
    found = [f"{key}={value}" for key, value in given.items() if value not in ("", own.get(key))]
    lines = query.get("settings", "")[:MAX_SETTINGS_LETTERS].splitlines()
    return [*found, *(line.strip() for line in lines if line.strip())]


def _own_values(path: Path) -> dict[str, str]:
    """What a recipe itself says, by key; nothing where it cannot be read."""
    try:
        recipe = read_recipe(path)
    except RecipeError:
        return {}
    found = {}
    for key, _ in _FIELDS:
        value: object = recipe
        for part in key.split("."):
            value = getattr(value, part, None)
        if isinstance(value, str):
            found[key] = value
        else:
            found[key] = "" if value in (None, 0.0) else f"{value:g}"
    return found


def _fields(own: Mapping[str, str], query: Mapping[str, str]) -> list[PlanField]:
    """With what was given, else with what the recipe says."""
    return [
        PlanField(
            key=key,
            label=label,
            value=query.get(key) or own.get(key, ""),
            own=own.get(key, ""),
            is_number=key not in (_NAME, _BASE, _TEACHER),
        )
        for key, label in _FIELDS
    ]
