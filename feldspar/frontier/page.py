"""A study's outcome on disk: frontier.json for programs, a Markdown table, a page with a plot."""

from __future__ import annotations

import dataclasses
import json
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from feldspar.files import write_text_whole
from feldspar.views.frontier import (
    COLUMNS,
    FRONTIER_FILE,
    StudyResult,
    cells,
    exam_table,
    front_chart,
    notes,
)
from feldspar.views.pages import asset


def write_study(root: Path, name: str, result: StudyResult) -> Path:
    """Write all three; gives the page's path."""
    write_text_whole(root / FRONTIER_FILE, json.dumps(as_json(result), indent=1) + "\n")
    write_text_whole(root / "frontier.md", f"# {name}\n\n{markdown(result)}")
    path = root / "frontier.html"
    write_text_whole(path, _page(name, result))
    return path


def as_json(result: StudyResult) -> dict[str, object]:
    """Rows as they are; an interval is two numbers."""
    return dataclasses.asdict(result)


def markdown(result: StudyResult) -> str:
    """The table, with the lines that say what it is of."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---|" * (len(COLUMNS) - 1)]
    lines += [f"| {' | '.join(cells(row))} |" for row in result.rows]
    lines += ["", *(f"{line}\n" for line in notes(result))]
    header, *rows = exam_table(result)
    lines += [f"| {' | '.join(header)} |", "|---|" + "---|" * (len(header) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def _page(name: str, result: StudyResult) -> str:
    template = resources.files("feldspar.frontier").joinpath("page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.from_string(template).render(
        name=name,
        columns=COLUMNS,
        rows=[(row, cells(row)) for row in result.rows],
        runs=result.runs,
        exams=exam_table(result),
        notes=notes(result),
        figure=front_chart(result.rows),
        style=Markup(asset("page.css").decode()),
    )
