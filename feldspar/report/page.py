"""A run directory as one self-contained page. Works on a run that is not finished.

`gather` reads the run directory; `render` is a pure function of what was gathered. Samples and
answers are hostile text: the template escapes everything but our own figures.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from feldspar.files import write_text_whole
from feldspar.records import Leaf, Phase, PhaseTraining, Sample, Score, Touched
from feldspar.reference_scores import (
    COLUMNS,
    FOOTNOTES,
    PUBLISHED_ROWS,
    Column,
    OwnRow,
    PublishedRow,
    own_rows,
    own_settings,
)
from feldspar.report.changes import CheckpointChanges, find_turns
from feldspar.report.figures import loss_figure, merge_figure
from feldspar.report.grid import Grid, markdown_table, score_grid
from feldspar.report.merges import read_merges
from feldspar.runs import Rows, open_step, read_recipe_of
from feldspar.stats.intervals import FEWEST_TO_TELL
from feldspar.stats.merge_curve import MergeSelection
from feldspar.stored import read_stored, reading

STEPS = (
    *("leaves", "leaf-exams", "own-exams", "samples", "phases", "trained", "merged", "preferred"),
    "scores",
    *("served-exams", "general", "benchmarks", "mt-bench", "judged", "touched", "untouched"),
)
MAX_TOUCHED = 100
EXAM_METRICS = ("accuracy", "log-likelihood")
FUNNEL_STAGES = ("asked", "answered", "parsed", "judged", "distinct", "clean", "kept")
MAX_EXAMPLES_PER_LEAF = 2
MAX_EXAMPLES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSample:
    sample: Sample
    seed_questions: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMerge:
    """What was chosen between two checkpoints, and the curve behind it."""

    selection: MergeSelection
    figure: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelRow:
    leaf: str
    counts: dict[str, int]
    reasons: tuple[tuple[str, int], ...]
    hint: str = ""
    """What to change, where little was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything the page shows."""

    name: str
    recipe: str
    num_leaves: int
    num_samples: int
    num_kept: int
    grids: tuple[Grid, ...]
    own_rows: tuple[OwnRow, ...]
    """The run's rows of the published benchmarks."""
    own_settings: tuple[str, ...]
    parts: tuple[Grid, ...]
    """The published benchmarks in parts: subjects, categories, runs, judge errors."""
    touched: tuple[Touched, ...]
    num_touched: int
    phases: tuple[Phase, ...]
    trained: dict[str, PhaseTraining]
    """Phase name -> how it was trained."""
    choices: dict[str, str]
    """Phase name -> the checkpoint chosen and why."""
    early: dict[str, dict[str, float]]
    """Phase name -> mean loss and gradient norm of its first steps, and how many these are."""
    loss_figure: Markup | None
    merges: tuple[ShownMerge, ...]
    rounds: tuple[dict[str, object], ...]
    funnels: tuple[FunnelRow, ...]
    examples: tuple[ShownSample, ...]
    turns: tuple[CheckpointChanges, ...]
    """What each phase learned and forgot."""
    steps: tuple[tuple[str, int, float], ...]
    funnel_stages: tuple[str, ...] = FUNNEL_STAGES
    columns: tuple[Column, ...] = COLUMNS
    published_rows: tuple[PublishedRow, ...] = PUBLISHED_ROWS
    footnotes: tuple[str, ...] = FOOTNOTES

    @staticmethod
    def direction(grid: Grid, exam: str, checkpoint: str) -> str:
        """`up` or `down` where the interval does not meet the first checkpoint's, else nothing; one
        of too few items says nothing."""
        first = grid.cells.get((exam, grid.checkpoints[0]))
        score = grid.cells.get((exam, checkpoint))
        if first is None or score is None or score.num_items < FEWEST_TO_TELL:
            return ""
        if score.interval.low > first.interval.high:
            return "up"
        return "down" if score.interval.high < first.interval.low else ""


def write_report(run_path: Path) -> Path:
    """Write `report.html`, and its tables as `report.md`, into the run; gives the page's path."""
    page = gather(run_path)
    path = run_path / "report.html"
    write_text_whole(path, render(page))
    grids = (*page.grids, *page.parts)
    tables = "\n".join(f"## {grid.metric}\n\n{markdown_table(grid)}" for grid in grids)
    write_text_whole(run_path / "report.md", f"# {page.name}\n\n{tables}")
    return path


def render(page: Page) -> str:
    """The page as HTML."""
    template = resources.files("feldspar.report").joinpath("page.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.from_string(template).render(page=page)


def gather(run_path: Path) -> Page:
    """Read what there is of a run."""
    steps = {name: rows for name in STEPS if (rows := open_step(run_path, name)) is not None}
    leaves: list[Leaf] = list(steps.get("leaves", ()))
    scores: list[Score] = list(steps.get("scores", ()))
    num_samples, num_kept, examples = _examples(steps.get("samples"), leaves)
    published = [s for step in ("benchmarks", "mt-bench") for s in steps.get(step, ())]
    untouched: list[Score] = list(steps.get("untouched", ()))
    of_exams = [s for s in untouched if s.metric in EXAM_METRICS]
    general: list[Score] = list(steps.get("general", ()))
    is_first = {id(s): s.metric in EXAM_METRICS and ": " not in s.exam for s in general}
    of_exams = [*(s for s in general if is_first[id(s)]), *of_exams]
    served: list[Score] = list(steps.get("served-exams", ()))
    grids = [score_grid([*scores, *served, *of_exams], metric) for metric in EXAM_METRICS]
    judged: list[Score] = list(steps.get("judged", ()))
    grids += [score_grid(judged, metric) for metric in dict.fromkeys(s.metric for s in judged)]
    in_parts = [s for s in general if not is_first[id(s)]]
    of_published = [*in_parts, *published, *(s for s in untouched if s.metric not in EXAM_METRICS)]
    metrics_of_published = dict.fromkeys(s.metric for s in of_published)
    touched: list[Touched] = list(steps.get("touched", ()))
    metrics = _json_lines(steps.get("trained"), "metrics.jsonl")
    selections = _json_lines(steps.get("trained"), "selections.jsonl")
    return Page(
        name=run_path.name,
        recipe=(run_path / "recipe.json").read_text(encoding="utf-8"),
        num_leaves=len(leaves),
        num_samples=num_samples,
        num_kept=num_kept,
        grids=tuple(grid for grid in grids if grid.exams),
        own_rows=tuple(own_rows(published)),
        own_settings=tuple(own_settings(published)),
        parts=tuple(score_grid(of_published, metric) for metric in metrics_of_published),
        touched=tuple(touched[:MAX_TOUCHED]),
        num_touched=len(touched),
        phases=tuple(steps.get("phases", ())),
        trained={p.name: p for p in read_recipe_of(run_path).train.of_phases()},
        choices=_choices(selections),
        early={s["phase"]: s["early"] for s in selections if s.get("early")},
        loss_figure=Markup(loss_figure(metrics)) if metrics else None,
        merges=tuple(
            ShownMerge(selection=m, figure=Markup(merge_figure(m.curve, m.weight)))
            for m in read_merges(run_path)
        ),
        rounds=tuple(_flat(r) for r in _json_lines(steps.get("preferred"), "rounds.jsonl")),
        funnels=tuple(_funnels(steps.get("samples"))),
        examples=examples,
        turns=_turns(steps, score_grid(scores)),
        steps=tuple((name, len(rows), rows.seconds) for name, rows in steps.items()),
    )


def _examples(
    samples: Rows[Sample] | None, leaves: list[Leaf]
) -> tuple[int, int, tuple[ShownSample, ...]]:
    """Counts, and per leaf a few kept and a few rejected samples with the seeds behind them."""
    questions = {s.id: s.question for leaf in leaves for s in (*leaf.seeds, *leaf.exam_seeds)}
    shown: dict[tuple[str, bool], list[ShownSample]] = {}
    num_kept = num_samples = 0
    for sample in samples or ():
        num_samples += 1
        num_kept += sample.is_kept
        group = shown.setdefault((sample.leaf, sample.is_kept), [])
        if len(group) < MAX_EXAMPLES_PER_LEAF:
            seeds = tuple(questions[s] for s in sample.seeds if s in questions)
            group.append(ShownSample(sample=sample, seed_questions=seeds))
    some = itertools.islice(itertools.chain.from_iterable(shown.values()), MAX_EXAMPLES)
    return num_samples, num_kept, tuple(some)


def _turns(steps: dict[str, Rows[Any]], grid: Grid) -> tuple[CheckpointChanges, ...]:
    if "scores" not in steps:
        return ()
    items = [item for name in ("own-exams", "leaf-exams") for item in steps.get(name, ())]
    return find_turns(steps["scores"].files("answers"), grid.checkpoints, items)


def _json_lines(step: Rows[Any] | None, name: str) -> list[dict[str, Any]]:
    if step is None or not (path := step.file(name)).exists():
        return []
    with reading(path):
        return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def _choices(selections: list[dict[str, Any]]) -> dict[str, str]:
    return {s["phase"]: f"step {s['step']}: {s['reason']}" for s in selections}


def _flat(round_line: dict[str, Any]) -> dict[str, object]:
    figures = {n: v for n, v in round_line.items() if not isinstance(v, (dict, list))}
    for score in round_line["scores"].get(round_line["phase"], ()):
        if score["exam"] == "mt-bench":
            figures[f"mt-bench {score['metric']}"] = score["value"]
    return {
        name.replace("_", " "): f"{value:.3f}" if isinstance(value, float) else value
        for name, value in figures.items()
    }


def _funnels(samples: Rows[Sample] | None) -> Iterator[FunnelRow]:
    if samples is None or not (path := samples.file("funnel.json")).exists():
        return
    for leaf in read_stored(path, dict[str, Any])["leaves"]:
        reasons = [(r["reason"], r["count"]) for r in leaf["reasons"]]
        counts = {stage: leaf[stage] for stage in FUNNEL_STAGES}
        hint = " ".join(filter(None, (leaf.get("note"), leaf.get("hint"))))
        yield FunnelRow(leaf=leaf["leaf"], counts=counts, reasons=tuple(reasons), hint=hint)
