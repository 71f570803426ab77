"""What `feldspar serve` serves: a run's result or a model folder, under its name and limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

from feldspar.config import ServeConfig, StudentConfig
from feldspar.errors import RunError
from feldspar.runs import read_recipe_of, result_of
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


def run_to_serve(run_path: Path) -> ModelToServe:
    """A run's result, under the run's name. Raises RunError where nothing is trained yet."""
    recipe, checkpoint = read_recipe_of(run_path), result_of(run_path)
    card = ModelCard(run_path.name, checkpoint.digest[:16])
    what = f"{checkpoint.phase}, step {checkpoint.step}"
    return ModelToServe(card, checkpoint.path, recipe.student, recipe.serve, what)


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
