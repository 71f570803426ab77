"""The runs behind a result: its own, and those whose results and rows it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from feldspar.records import Leaf
from feldspar.runs import open_step, read_recipe_of


class Chain(NamedTuple):
    """Runs from the first to the result's own."""

    runs: list[Path]
    missing: list[str]
    """Runs that this one was made from and that are gone."""

    @property
    def base(self) -> str:
        """The model that all began from, by directory or hub id."""
        return read_recipe_of(self.runs[0]).student.base

    @property
    def is_generated(self) -> bool:
        """Whether any of its rows were written from a taxonomy."""
        return any(read_recipe_of(run).taxonomy is not None for run in self.runs)

    def leaves(self) -> list[Leaf]:
        """Of all runs, each once: what the latest run knows of it."""
        found = {leaf.path: leaf for run in self.runs for leaf in open_step(run, "leaves") or ()}
        return list(found.values())


def runs_behind(run_path: Path) -> Chain:
    """The chain that ends in a run, by its base and by the earlier runs that its rows come from."""
    order: list[Path] = []
    missing: dict[str, None] = {}
    _visit(run_path, order, missing, set())
    return Chain(order, list(missing))


def _visit(run_path: Path, order: list[Path], missing: dict[str, None], seen: set[Path]) -> None:
    seen.add(run_path.resolve())
    recipe = read_recipe_of(run_path)
    earlier = [Path(data.run) for data in recipe.data if data.run is not None]
    # A base in RUN/steps/NAME/KEY is the result of RUN.
    earlier += [p.parent for p in Path(recipe.student.base).parents if p.name == "steps"]
    for run in earlier:
        if not (run / "recipe.json").is_file():
            missing[str(run)] = None
        elif run.resolve() not in seen:
            _visit(run, order, missing, seen)
    order.append(run_path)
