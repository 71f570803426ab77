"""Recipes written from the page: those that come with Feldspar, as `feldspar init` writes them."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feldspar.children import child_environment, module_command
from feldspar.studio.project import Project


class OfferedRecipe(NamedTuple):
    """A shipped recipe that one can begin with."""

    name: str
    about: str


OFFERED = (
    OfferedRecipe(
        "my-documents",
        "Your leaves and a small model of yours. No teacher is needed: questions are made of your "
        "documents' sentences by rules. For trying, not for quality.",
    ),
    OfferedRecipe(
        "modern-laptop",
        "Your leaves, a model of 0.6 billion parameters, and a teacher behind an address.",
    ),
    OfferedRecipe(
        "modern-one-gpu", "Your leaves, a model that one GPU trains, and a teacher at an address."
    ),
    OfferedRecipe(
        "demo",
        "An island that does not exist, taught to a model of 135 million parameters on a CPU. "
        "Downloads 98 MB.",
    ),
    OfferedRecipe(
        "quickstart", "An invented world with its own teacher and model: minutes, no download."
    ),
)


class RecipeRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")
    recipe: str = Field(max_length=100)


class RecipePages:
    """Handlers of one app."""

    def __init__(self, project: Project, *, read_only: bool) -> None:
        self._project, self._read_only = project, read_only

    async def write(self, request: web.Request) -> web.Response:
        """`{"recipe": FILE}`. Errors as text: 403 read-only, 409 it is there, 422 no such one."""
        if self._read_only:
            return web.Response(status=403, text="this studio only reads")
        try:
            name = RecipeRequest.model_validate_json(await request.read()).recipe
        except ValidationError as error:
            return web.Response(status=422, text=error.errors()[0]["msg"])
        if name not in {offered.name for offered in OFFERED}:
            return web.Response(status=422, text=f"no recipe {name[:80]!r} is offered")
        fault = await self._init(name)
        if fault:
            return web.Response(status=409, text=fault)
        return web.json_response({"recipe": f"{name}.toml"})

    async def _init(self, name: str) -> str:
        """What stood in the way; empty where nothing did."""
        self._project.folder.mkdir(parents=True, exist_ok=True)
        command = [*module_command("feldspar.cli.main"), "init", str(self._project.folder)]
        process = await asyncio.create_subprocess_exec(
            *command,
            "--recipe",
            name,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(),
        )
        _, said = await process.communicate()
        lines = said.decode("utf-8", "replace").splitlines() or ["feldspar init failed"]
        return lines[-1].removeprefix("feldspar: ") if process.returncode else ""
