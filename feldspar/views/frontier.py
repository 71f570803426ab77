"""A study's arms: what each has learned and kept, and the front. Of `frontier.json` as
`feldspar frontier` wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from feldspar.stats.intervals import Difference
from feldspar.stats.merge_curve import MeanMark
from feldspar.stored import read_stored
from feldspar.views.charts import Row, measured

FRONTIER_FILE = "frontier.json"
COLUMNS = ("arm", "learned", "to the first", "kept", "to the first", "trained tokens", "seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """A row of the table."""

    name: str
    settings: tuple[str, ...]
    learned: MeanMark
    learned_by_seed: tuple[float, ...]
    kept: MeanMark | None
    kept_by_seed: tuple[float, ...]
    exams: dict[str, MeanMark]
    """Every exam that can be matched."""
    learned_to_first: Difference | None
    """This arm minus the first, paired; None for the base."""
    kept_to_first: Difference | None
    has_learned_as_much: bool
    """As the arm that has learned most: no more than one standard error of the paired differences
    below it. Kept is compared at matched learning among these."""
    is_on_front: bool
    """No other arm has learned and kept at least as much, and more of one."""
    trained_tokens: float
    seconds: float
    shared: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """The outcome, as frontier.json has it."""

    learned_exams: tuple[str, ...]
    num_seeds: int
    equal_tokens: bool
    rows: tuple[ArmFigures, ...]
    """The base first."""
    runs: dict[str, tuple[str, ...]]
    """Folders of each arm's runs, relative to the study's."""


def read_study(folder: Path) -> StudyResult:
    """Raises RunError where the file is not there, or damaged."""
    return read_stored(folder / FRONTIER_FILE, StudyResult)


def exam_table(result: StudyResult) -> list[list[str]]:
    """Every exam by arm, the header first."""
    exams = list(dict.fromkeys(exam for row in result.rows for exam in row.exams))
    table = [["arm", *exams]]
    for row in result.rows:
        table.append([row.name, *(mark_text(row.exams.get(exam), ()) for exam in exams)])
    return table


def cells(row: ArmFigures) -> list[str]:
    """Of a line of the table: the name with its marks, then figures."""
    marks = "*" * row.is_on_front + "=" * (row.has_learned_as_much and row.seconds > 0)
    return [
        f"{row.name} {marks}".strip(),
        mark_text(row.learned, row.learned_by_seed),
        difference_text(row.learned_to_first),
        mark_text(row.kept, row.kept_by_seed),
        difference_text(row.kept_to_first),
        f"{row.trained_tokens:,.0f}" if row.trained_tokens else "-",
        f"{row.seconds:,.0f}" if row.seconds else "-",
    ]


def notes(result: StudyResult) -> list[str]:
    """What the table is of."""
    base = result.rows[0]
    kept = f", kept over {base.kept.num_items} answers" if base.kept else ""
    seeds = "one seed"
    if result.num_seeds > 1:
        seeds = f"{result.num_seeds} seeds, each one's figure in brackets"
    equal = " All phases see as many trained tokens as the first arm's, to the nearest epoch."
    return [
        f"Learned: {', '.join(result.learned_exams)}, over {base.learned.num_items} answers{kept}; "
        f"{seeds}. Reported items, which nothing was chosen by; intervals are 95 %.",
        "* on the front: no arm has learned and kept at least as much, and more of one. = has "
        "learned as much as the arm that has learned most (one standard error, paired): compare "
        "kept among these. Differences are paired with the first arm; ~ is within noise.",
        "Seconds are of the steps that the arm itself computed; it found the others."
        + equal * result.equal_tokens,
    ]


def mark_text(mark: MeanMark | None, by_seed: Sequence[float]) -> str:
    if mark is None:
        return "-"
    text = f"{mark.value:.3f} [{mark.interval.low:.3f}, {mark.interval.high:.3f}]"
    seeds = ", ".join(f"{value:.2f}" for value in by_seed)
    return f"{text} ({seeds})" if len(by_seed) > 1 else text


def difference_text(difference: Difference | None) -> str:
    if difference is None:
        return "-"
    low, high = difference.interval
    text = f"{difference.value:+.3f} [{low:+.3f}, {high:+.3f}]"
    return text if difference.is_beyond_noise else f"{text} ~"


def front_chart(rows: Sequence[ArmFigures]) -> Markup | None:
    """Kept against learned with 95 % intervals, the Pareto front joined by a line; None for fewer
    than two arms that have both."""
    points = sorted(_points(rows), key=lambda point: float(str(point["x"])))
    if len(points) < 2:
        return None
    return measured(
        points,
        series=[str(point["series"]) for point in points],
        x_title="learned, share right",
        y_title="kept, share right",
        marks=[],
    )


def _points(rows: Sequence[ArmFigures]) -> Iterator[Row]:
    for row in rows:
        if row.kept is not None:
            learned, kept = row.learned, row.kept
            yield {
                **{"x": learned.value, "left": learned.interval.low},
                **{"right": learned.interval.high, "value": kept.value},
                **{"low": kept.interval.low, "high": kept.interval.high, "series": row.name},
                **{"joined": row.is_on_front, "line": "front"},
                "told": f"{row.name}: learned {mark_text(learned, ())}, kept {mark_text(kept, ())}",
            }
