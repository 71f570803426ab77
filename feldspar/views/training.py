"""How the phases were trained: what each drew from, as planned and as seen, losses by source, and
the checkpoint that was chosen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from markupsafe import Markup

from feldspar.mix.phases import is_replayed
from feldspar.records import Phase, PhaseTraining, Source
from feldspar.train.select import Selection
from feldspar.views.charts import Row, bars, curves, intervals
from feldspar.views.merges import ShownMerge, show_merges
from feldspar.views.run_files import RunFiles, TrainingStep

MAX_POINTS = 120
"""Of a curve: steps beyond that are averaged in groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSeen:
    """A source of a phase: what was planned, and what the steps drew."""

    name: str
    num_rows: int
    planned: str
    """`all`, `half of its rows`, `40 % of the phase`."""
    num_seen: int
    """Rows drawn over all steps, repeats counted."""
    share_seen: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseView:
    name: str
    training: PhaseTraining | None
    sources: tuple[SourceSeen, ...]
    selection: Selection | None
    losses: Markup | None
    """Loss by source over the steps."""
    candidates: Markup | None
    """Checkpoints against the phase's start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingView:
    phases: tuple[PhaseView, ...]
    seen: Markup | None
    """Rows of each source, by phase."""
    merges: tuple[ShownMerge, ...]


def training_of(run: RunFiles) -> TrainingView:
    """Of a run that may not have trained yet: then only what is planned."""
    by_phase: defaultdict[str, list[TrainingStep]] = defaultdict(list)
    for line in run.metrics:
        by_phase[line.phase].append(line)
    chosen = {s.phase: s for s in run.selections}
    phases = tuple(
        _phase(phase, by_phase[phase.name], run.trained_as.get(phase.name), chosen.get(phase.name))
        for phase in run.phases
    )
    return TrainingView(phases=phases, seen=_seen_chart(phases), merges=show_merges(run.path))


def _phase(
    phase: Phase,
    steps: Sequence[TrainingStep],
    training: PhaseTraining | None,
    selection: Selection | None,
) -> PhaseView:
    seen: defaultdict[str, int] = defaultdict(int)
    for step in steps:
        for name, part in step.sources.items():
            seen[name] += part.samples
    total = sum(seen.values())
    sources = tuple(
        SourceSeen(
            name=source.name,
            num_rows=source.num_samples,
            planned=_planned(source),
            num_seen=seen[source.name],
            share_seen=seen[source.name] / total if total else None,
        )
        for source in phase.sources
    )
    return PhaseView(
        name=phase.name,
        training=training,
        sources=sources,
        selection=selection,
        losses=_loss_chart(steps, selection),
        candidates=_candidates_chart(selection),
    )


def _planned(source: Source) -> str:
    if source.share is not None:
        told = "replay" if is_replayed(source) else "its own texts"
        return f"{told}: {source.share:.0%} of the phase"
    if source.fraction is not None:
        return f"replay: {source.fraction:.0%} of its rows each epoch"
    return "the phase's own"


def _loss_chart(steps: Sequence[TrainingStep], selection: Selection | None) -> Markup | None:
    names = list(dict.fromkeys(name for step in steps for name in step.sources))
    rows: list[Row] = []
    for name in names:
        points = [(s.step, s.sources[name].loss) for s in steps if name in s.sources]
        rows += [{"x": x, "value": value, "series": name} for x, value in thinned(points)]
    if not rows:
        points = [(s.step, s.loss) for s in steps if s.loss is not None]
        names = ["all rows"]
        rows = [{"x": x, "value": value, "series": names[0]} for x, value in thinned(points)]
    if not rows:
        return None
    marks: list[Row] = []
    if selection is not None:
        marks = [{"x": selection.step, "label": f"chosen: step {selection.step}"}]
    return curves(
        rows, series=names, x_title="optimizer step", y_title="loss, nats a token", marks=marks
    )


def _candidates_chart(selection: Selection | None) -> Markup | None:
    if selection is None or not any(c.to_start for c in selection.candidates):
        return None
    rows: list[Row] = []
    for candidate in selection.candidates:
        if candidate.to_start is None:
            continue
        change = candidate.to_start
        is_chosen = candidate.step == selection.step
        rows.append(
            {
                "name": f"step {candidate.step}{' (chosen)' if is_chosen else ''}",
                "series": "chosen" if is_chosen else "passed over",
                "value": change.value,
                "low": change.interval.low,
                "high": change.interval.high,
                "told": f"step {candidate.step}: {change.value:+.3f} "
                f"[{change.interval.low:+.3f}, {change.interval.high:+.3f}]",
            }
        )
    return intervals(
        rows,
        series=["chosen", "passed over"],
        title=f"{selection.metric} minus the phase's start, {selection.num_items} items",
        bounds=None,
    )


def _seen_chart(phases: Sequence[PhaseView]) -> Markup | None:
    names = list(dict.fromkeys(s.name for phase in phases for s in phase.sources))
    rows: list[Row] = [
        {
            "name": phase.name,
            "series": source.name,
            "value": source.num_seen,
            "order": names.index(source.name),
            "told": f"{phase.name} saw {source.num_seen} rows of {source.name}",
        }
        for phase in phases
        for source in phase.sources
        if source.num_seen
    ]
    title = "rows drawn, repeats counted"
    return bars(rows, series=names, title=title, is_stacked=True) if rows else None


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most MAX_POINTS points: means over groups of as many steps each."""
    size = max(1, -(-len(points) // MAX_POINTS))
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(fmean(x for x, _ in g), fmean(value for _, value in g)) for g in groups]
