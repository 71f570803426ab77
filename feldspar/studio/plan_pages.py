"""The page of a recipe: what its run will cost, at the prices that are given, and its start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from aiohttp import web
from markupsafe import Markup
from pydantic import ValidationError

from feldspar.config import Recipe, read_recipe
from feldspar.errors import FeldsparError, RecipeError, RunError
from feldspar.studio.plan_told import Planner
from feldspar.studio.project import Project
from feldspar.studio.run_control import LaunchRequest, RunControl
from feldspar.studio.shown import ShownPage
from feldspar.views.links import ViewPlace, studio_link
from feldspar.views.pages import render

MAX_SETTINGS_LETTERS = 4000


class PlanField(NamedTuple):
    """A setting that has a field of its own in the form."""

    key: str
    label: str
    value: str
    """As the recipe has it, or as it was given."""


_FIELDS = (
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
        settings = asked_settings(request.query)
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
            fields=_fields(recipe, request.query),
            settings=request.query.get("settings", ""),
            query=request.query_string,
            state=self._state_of(recipe.name) if recipe else Markup(),
            read_only=self._read_only,
        )
        return ShownPage(f"Plan: {recipe.name}" if recipe else named, body)

    async def figures(self, request: web.Request) -> web.Response:
        """What `feldspar plan` says, as HTML."""
        path = self._project.recipe_path(request.query.get("recipe", ""))
        try:
            plan = await self._planner.plan(path, asked_settings(request.query))
        except FeldsparError as error:
            body = render("plan_figures.html.j2", plan=None, fault=str(error))
        else:
            body = render("plan_figures.html.j2", plan=plan, fault="")
        return web.Response(text=str(body), content_type="text/html")

    def starting(self, request: web.Request) -> ShownPage:
        """Where a browser waits until a run that it started shows up."""
        name = request.match_info["run"]
        return ShownPage(name, render("starting.html.j2", state=self._state_of(name)))

    async def state(self, request: web.Request) -> web.Response:
        """How the last start goes, as HTML; browsers are sent on to the live page once it runs."""
        name = request.match_info["run"]
        body = await asyncio.to_thread(self._state_of, name)
        headers = {}
        if self._control.launch_state(name).state == "running":
            headers["HX-Redirect"] = studio_link(name)(ViewPlace("live"))
        return web.Response(text=str(body), content_type="text/html", headers=headers)

    async def start(self, request: web.Request) -> web.Response:
        """`{"run": NAME}`. Errors: 403 read-only, 409 it runs already, 422 a wrong recipe."""
        if self._read_only:
            return web.Response(status=403, text="this studio only reads")
        try:
            asked = LaunchRequest.model_validate_json(await request.read())
            name = await asyncio.to_thread(self._control.start, asked)
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

    def _state_of(self, name: str) -> Markup:
        launch = self._control.launch_state(name)
        return render("launch.html.j2", launch=launch, name=name, link=studio_link(name))


def asked_settings(query: Mapping[str, str]) -> list[str]:
    """The settings of a form: its own fields that were filled in, then one a line."""
    found = [f"{key}={query[key].strip()}" for key, _ in _FIELDS if query.get(key, "").strip()]
    lines = query.get("settings", "")[:MAX_SETTINGS_LETTERS].splitlines()
    return [*found, *(line.strip() for line in lines if line.strip())]


def _fields(recipe: Recipe | None, query: Mapping[str, str]) -> list[PlanField]:
    """With what was given, else with what the recipe says."""
    found = []
    for key, label in _FIELDS:
        value: object = recipe
        for part in key.split("."):
            value = getattr(value, part, None)
        said = "" if value in (None, 0.0) else f"{value:g}"
        found.append(PlanField(key, label, query.get(key) or said))
    return found
