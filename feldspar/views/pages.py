"""Views as HTML: each page is a pure function of a run's files, for the studio and for the report.

Samples, answers and names are hostile text: the templates escape everything but Vega's drawings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import jinja2
from markupsafe import Markup, escape

from feldspar.records import Sample
from feldspar.reviews import Reviews
from feldspar.views import exams, links
from feldspar.views.charts import Row, intervals
from feldspar.views.exams import TurnedPage
from feldspar.views.leaves import LeafPage, tree_of
from feldspar.views.links import Link, ViewPlace
from feldspar.views.live import RunControls, live_of
from feldspar.views.passages import FoundPassage
from feldspar.views.preference import preference_of
from feldspar.views.reviews import MAX_SHOWN, ReviewsView, with_reviews
from feldspar.views.run_files import RunFiles
from feldspar.views.sample_index import ReviewState, SamplePage, SampleSummary
from feldspar.views.samples import SampleView
from feldspar.views.training import training_of
from feldspar.views.verdict import Verdict, verdict_of

MAX_PASSAGES = 40
"""Of a leaf, shown on its page."""


REVIEW_STATES: tuple[tuple[ReviewState, str], ...] = (
    ("", "all"),
    ("open", "not reviewed"),
    ("accepted", "accepted"),
    ("rejected", "rejected"),
    ("edited", "edited"),
    ("conflict", "disagreed on"),
)
"""Of review, and what they are called."""


class Section(NamedTuple):
    """A page's part of the report, and its name in the studio's navigation."""

    page: str
    title: str


VERDICT, LEAVES, SAMPLES = (
    Section("verdict", "Verdict"),
    Section("leaves", "Leaves"),
    Section("samples", "Samples"),
)
TRAINING, EXAMS, PREFERENCE = (
    Section("training", "Training"),
    Section("exams", "Exams"),
    Section("preference", "Preference"),
)
REVIEWS, COST = Section("reviews", "Reviews"), Section("cost", "Steps")


class Pages:
    """The views of one run, with links of one face."""

    def __init__(self, run: RunFiles, link: Link, *, is_live: bool) -> None:
        self.run = run
        self._shared = {"run": run, "link": link, "is_live": is_live}

    def render(self, template: str, **given: object) -> Markup:
        return render(template, **self._shared, **given)

    def verdict(self, samples: SampleSummary | None) -> Markup:
        verdict = verdict_of(self.run, samples)
        is_counting = samples is None and self.run.samples is not None
        return self.render(
            "verdict.html.j2", v=verdict, picture=_picture(verdict), is_counting=is_counting
        )

    def leaves(self) -> Markup:
        return self.render("leaves.html.j2", tree=tree_of(self.run))

    def leaf(self, page: LeafPage) -> Markup:
        return self.render("leaf.html.j2", page=page, max_passages=MAX_PASSAGES)

    def samples(
        self, found: SamplePage, reasons: Iterable[str], reviews: Reviews, reviewer: str = ""
    ) -> Markup:
        """`reviewer`: who may decide here; empty where nobody may."""
        return self.render(
            "samples.html.j2",
            found=found,
            shown=with_reviews(found.samples, reviews),
            paths=[leaf.path for leaf in self.run.leaves],
            reasons=list(reasons),
            review_states=REVIEW_STATES,
            reviewer=reviewer,
        )

    def sample(self, view: SampleView, reviews: Reviews, reviewer: str = "") -> Markup:
        (reviewed,) = with_reviews([view.sample], reviews)
        return self.render("sample.html.j2", v=view, r=reviewed, reviewer=reviewer)

    def reviewed_sample(self, sample: Sample, reviews: Reviews, reviewer: str) -> Markup:
        """One item of the samples' list."""
        (reviewed,) = with_reviews([sample], reviews)
        return self.render("review_item.html.j2", r=reviewed, reviewer=reviewer)

    def reviews(self, view: ReviewsView, controls: RunControls | None = None) -> Markup:
        return self.render("reviews.html.j2", rv=view, max_shown=MAX_SHOWN, controls=controls)

    def training(self) -> Markup:
        return self.render("training.html.j2", t=training_of(self.run))

    def exams(self) -> Markup:
        view = exams.exams_of(self.run)
        titles, meanings = exams.TITLES, exams.MEANINGS
        return self.render("exams.html.j2", e=view, titles=titles, meanings=meanings)

    def turned(self, page: TurnedPage) -> Markup:
        return self.render("turned.html.j2", t=page)

    def preference(self) -> Markup:
        return self.render("preference.html.j2", pr=preference_of(self.run))

    def live(self, controls: RunControls | None = None) -> Markup:
        """`controls`: what the studio offers to do with the run, if anything."""
        return self.render("live.html.j2", live=live_of(self.run), controls=controls)

    def chat(self, *, read_only: bool) -> Markup:
        has_passages = any(leaf.chunks for leaf in self.run.leaves)
        return self.render("chat.html.j2", read_only=read_only, has_passages=has_passages)

    def why(self, nearest: Sequence[tuple[Sample, float]]) -> Markup:
        return self.render("why.html.j2", nearest=nearest)

    def passages(self, found: Sequence[FoundPassage]) -> Markup:
        return self.render("passages.html.j2", found=found)

    def cost(self) -> Markup:
        return self.render("cost.html.j2")


def render(template: str, **given: object) -> Markup:
    """A template of this room, everything in it escaped."""
    return Markup(_environment().get_template(template).render(**given))


def asset(name: str) -> bytes:
    """A file that browsers are given: a style sheet, a script, or a licence."""
    return resources.files("feldspar.views").joinpath("static", name).read_bytes()


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("feldspar.views"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "capitalize_first": _capitalize_first,
        "duration": _duration,
        "signed": _signed,
        "breakable": _breakable,
    }
    environment.filters.update(filters)
    environment.globals.update(
        {"place": ViewPlace, "direction": exams.direction, "leaf_anchor": links.leaf_anchor}
    )
    return environment


def _capitalize_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _breakable(text: str) -> Markup:
    """A name that may go on in the next line behind each `/` and `_`."""
    return Markup(re.sub("([/_])", r"\1<wbr>", str(escape(text))))


def _signed(value: float) -> str:
    """`+0.12`; what is nothing at two digits has no minus."""
    text = f"{value:+.2f}"
    return "+0.00" if text == "-0.00" else text


def _duration(seconds: float) -> str:
    """`48 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _picture(verdict: Verdict) -> Markup | None:
    """Each exam before and after, what was taught first."""
    rows: list[Row] = []
    series: dict[str, None] = {}
    for kind, before, after in verdict.scores:
        for score in (before, after):
            series[score.checkpoint] = None
            low, high = score.interval
            rows.append(
                {
                    "name": f"{score.exam} ({kind})" if kind != "taught" else score.exam,
                    "series": score.checkpoint,
                    "value": score.value,
                    "low": low,
                    "high": high,
                    "told": f"{score.exam}, {score.checkpoint}: {score.value:.2f} "
                    f"[{low:.2f}, {high:.2f}], {score.num_items} items",
                }
            )
    if not rows:
        return None
    return intervals(rows, series=list(series), title="share of answers right", bounds=(0, 1))
