"""What `feldspar serve` serves: a run's result or a model folder, under its name and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

from feldspar.config import Recipe, ServeConfig, StudentConfig
from feldspar.errors import RunError
from feldspar.records import Checkpoint
from feldspar.runs import open_step, read_recipe_of, result_of
from feldspar.serve.app import listening, make_app
from feldspar.serve.hosted_model import open_engine
from feldspar.serve.protocol import ModelCard
from feldspar.student.model import base_checkpoint, load_to_answer

if TYPE_CHECKING:
    from pathlib import Path


class ModelToServe(NamedTuple):
    """A model to serve, and under which name and limits."""

    card: ModelCard
    path: str
    student: StudentConfig
    limits: ServeConfig
    what: str
    """For people."""


class Serving(NamedTuple):
    """Where a model is served."""

    url: str
    model: str
    what: str
    """For people."""


_TRAINED = ("trained", "merged", "preferred")
"""Steps that give checkpoints."""


def run_to_serve(run_path: Path, name: str | None = None) -> ModelToServe:
    """A run's result, under the run's name; or a checkpoint of its by the name that scores have for
    it: `base`, a phase, a round. Raises RunError where there is none."""
    recipe = read_recipe_of(run_path)
    checkpoint = result_of(run_path) if name is None else _checkpoint(run_path, recipe, name)
    shown = run_path.name if name is None else f"{run_path.name}:{name}"
    card = ModelCard(shown, checkpoint.digest[:16])
    what = f"{checkpoint.phase}, step {checkpoint.step}"
    return ModelToServe(card, checkpoint.path, recipe.student, recipe.serve, what)


def _checkpoint(run_path: Path, recipe: Recipe, name: str) -> Checkpoint:
    if name == "base":
        return base_checkpoint(recipe.student.base)
    rows = [row for step in _TRAINED for row in open_step(run_path, step) or ()]
    found = {row.phase: row for row in rows if isinstance(row, Checkpoint)}
    if name not in found:
        known = ", ".join(("base", *found))
        raise RunError(f"{run_path} has no checkpoint {name!r}; there are: {known}")
    return found[name]


def folder_to_serve(path: str) -> ModelToServe:
    """A model folder, under its path, spoken to through its own chat template."""
    card = ModelCard(path, base_checkpoint(path).digest[:16])
    student = StudentConfig(base=path, template="own")
    return ModelToServe(card, path, student, ServeConfig(), "a model folder")


async def serve_model(
    served: ModelToServe, *, host: str, port: int, key: str | None, say: Callable[[Serving], None]
) -> None:
    """Serve until interrupted. Raises RunError where the port is taken."""
    student = load_to_answer(served.path, served.student)
    async with open_engine(student, served.limits) as engine:
        app = make_app(
            [served.card],
            max_body_bytes=served.limits.max_body_bytes,
            draw=engine.draw,
            key=key,
            is_well=lambda: engine.is_alive,
        )
        async with AsyncExitStack() as stack:
            try:
                url = await stack.enter_async_context(listening(app, host, port))
            except OSError as error:
                raise RunError(
                    f"{host}:{port} cannot be listened on: {error.strerror}; name another --port"
                ) from error
            say(Serving(url, served.card.id, served.what))
            await asyncio.Event().wait()
