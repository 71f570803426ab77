"""Studies of several arms that lie in the folder of runs, and the page of one."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from feldspar.errors import RunError
from feldspar.studio.shown import ShownPage
from feldspar.views.frontier import (
    COLUMNS,
    FRONTIER_FILE,
    cells,
    exam_table,
    front_chart,
    notes,
    read_study,
)
from feldspar.views.pages import render


def study_names(folder: Path) -> list[str]:
    """Of the studies in a folder of runs that have an outcome, by name."""
    return sorted(path.parent.name for path in folder.glob(f"*/{FRONTIER_FILE}"))


class StudyPages:
    """Handlers of one app."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def page(self, request: web.Request) -> ShownPage:
        """Raises RunError where there is no such study, or it is damaged."""
        name = request.query.get("study", "")
        if name not in study_names(self._folder):
            raise RunError(f"no study called {name!r} in {self._folder}")
        result = read_study(self._folder / name)
        body = render(
            "frontier.html.j2",
            columns=COLUMNS,
            rows=[(row, cells(row)) for row in result.rows],
            runs=result.runs,
            exams=exam_table(result),
            notes=notes(result),
            figure=front_chart(result.rows),
            folder=str(self._folder / name),
        )
        return ShownPage(name, body)
