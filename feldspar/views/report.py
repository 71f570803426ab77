"""A run's views as one file that fetches nothing. Works on a run that is not finished."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from feldspar.files import write_text_whole
from feldspar.reviews import read_reviews
from feldspar.views import pages
from feldspar.views.exams import exam_grids, exams_of
from feldspar.views.grid import markdown_table
from feldspar.views.leaves import leaf_page_of
from feldspar.views.links import leaf_anchor, report_link
from feldspar.views.pages import Pages, Section, asset, render
from feldspar.views.reviews import reviews_of
from feldspar.views.run_files import RunFiles
from feldspar.views.sample_index import SampleIndex, SampleSummary, open_index
from feldspar.views.samples import SampleReader

MAX_LEAF_LETTERS = 1_500_000
"""Of the leaves' pages together; the tree has them all."""
MAX_SAMPLES = 400
MAX_SAMPLE_LETTERS = 1_200_000
"""Of the samples' section."""


class ReportSection(NamedTuple):
    """A section with its HTML."""

    page: str
    title: str
    body: Markup


class ReportLeaf(NamedTuple):
    """A leaf's page, under its anchor."""

    anchor: str
    path: str
    body: Markup


def write_report(run_path: Path) -> Path:
    """Write `report.html`, and its tables as `report.md`, into the run; gives the page's path."""
    run = RunFiles(run_path)
    path = run_path / "report.html"
    write_text_whole(path, render_report(run))
    tables = "\n".join(
        f"## {grid.metric}\n\n{markdown_table(grid)}"
        for grid in (*exam_grids(run), *exams_of(run).parts)
    )
    write_text_whole(run_path / "report.md", f"# {run.name}\n\n{tables}")
    return path


def render_report(run: RunFiles) -> str:
    """All views as one page."""
    index = open_index(run.samples) if run.samples is not None else None
    reviews = read_reviews(run.path)
    summary = index.summary() if index else None
    views = Pages(run, report_link, is_live=False)
    bodies: list[tuple[Section, Markup]] = [
        (pages.VERDICT, views.verdict(summary)),
        (pages.LEAVES, _leaves(views, summary)),
        (pages.TRAINING, views.training()),
        (pages.EXAMS, views.exams()),
        (pages.PREFERENCE, views.preference()),
    ]
    if index is not None and summary is not None:
        bodies.append((pages.SAMPLES, _samples(views, index, summary)))
    if reviews:
        bodies.append((pages.REVIEWS, views.reviews(reviews_of(run, index, reviews))))
    bodies.append((pages.COST, views.cost()))
    style = asset("page.css").decode()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return str(
        views.render(
            "report.html.j2",
            sections=[ReportSection(*section, body) for section, body in bodies],
            # The style sheet is ours, and holds no "</style>".
            style=Markup(style),
            style_hash=f"sha256-{digest}",
        )
    )


def _leaves(views: Pages, summary: SampleSummary | None) -> Markup:
    leaves = views.run.leaves
    shown: list[ReportLeaf] = []
    size = 0
    for leaf in leaves:
        page = leaf_page_of(views.run, leaf.path, summary)
        assert page is not None, leaf.path
        body = views.leaf(page)
        size += len(body)
        if size > MAX_LEAF_LETTERS:
            break
        shown.append(ReportLeaf(leaf_anchor(leaf.path), leaf.path, body))
    return render(
        "report_leaves.html.j2",
        tree=views.leaves(),
        leaves=shown,
        num_left_out=len(leaves) - len(shown),
    )


def _samples(views: Pages, index: SampleIndex, summary: SampleSummary) -> Markup:
    reader = SampleReader(views.run)
    shown: list[Markup] = []
    size = 0
    for sample in index.some(2)[:MAX_SAMPLES]:
        body = views.render("report_sample.html.j2", v=reader.view(sample))
        size += len(body)
        if size > MAX_SAMPLE_LETTERS:
            break
        shown.append(body)
    return views.render(
        "report_samples.html.j2",
        shown=shown,
        num_samples=summary.num_samples,
        num_kept=summary.num_kept,
    )
