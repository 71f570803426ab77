"""`feldspar world serve` and `feldspar world write`: the embedded teacher and world by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from feldspar.config import ErrorRates, WorldConfig

app = typer.Typer(help="The embedded teacher and micro-world by hand.", no_args_is_help=True)

RecipeOption = Annotated[
    Path | None,
    typer.Option("--recipe", help="Take [world] and [teacher.errors] from it."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value over the recipe; may be repeated."),
]


@app.command()
def serve(
    recipe: RecipeOption = None,
    settings: Settings = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
) -> None:
    """Serve the embedded teacher on this machine until Ctrl-C.

    Without a recipe it knows the default world and never errs; with a recipe that has no [world]
    it answers extractively.
    """
    import asyncio
    from contextlib import suppress

    world, rates = _parts(recipe, settings or [])
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(world, rates, port))


@app.command()
def write(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    recipe: RecipeOption = None,
    settings: Settings = None,
) -> None:
    """Write the world's taxonomy, base replay and exams as files."""
    from feldspar.errors import RecipeError
    from feldspar.world.write import write_world

    world, _ = _parts(recipe, settings or [])
    if world is None:
        raise RecipeError(f"{recipe}: has no [world] to write; add one, or leave --recipe out")
    for name, path in write_world(world, folder)._asdict().items():
        typer.echo(f"{name.replace('_', ' ')}: {path}")


async def _serve(world: WorldConfig | None, rates: ErrorRates, port: int) -> None:
    import asyncio

    from feldspar.world.serve import serving

    async with serving(world, rates, port) as teacher:
        typer.echo(teacher.url)
        await asyncio.Event().wait()


def _parts(path: Path | None, settings: list[str]) -> tuple[WorldConfig | None, ErrorRates]:
    from feldspar.config import ErrorRates, WorldConfig, read_recipe
    from feldspar.errors import RecipeError

    if path is None:
        if settings:
            raise RecipeError("--set changes a recipe: name one with --recipe")
        return WorldConfig(), ErrorRates()
    recipe = read_recipe(path, settings)
    return recipe.world, recipe.teacher.errors
