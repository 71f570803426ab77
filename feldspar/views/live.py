"""A run as it goes on: what it does now, how fast, how long still, and what it has spent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel

from feldspar.progress_file import RunState, TaskState, read_run_state
from feldspar.stored import read_stored
from feldspar.views.run_files import STEP_TITLES, RunFiles

PLANNED = "planned.json"
"""In a run: what its plan foresaw."""
SILENT_SECONDS = 120.0
"""Without a word, after which a run that still lives is said to be silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTask:
    name: str
    unit: str
    done: float
    total: float | None
    share: float | None
    rate: float
    seconds_left: float | None
    figures: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveStep:
    title: str
    state: str
    """`done`, `now` or `to come`."""
    num_rows: int
    seconds: float


class PlannedSpending(BaseModel):
    """What the plan of a run foresaw, as the studio noted it at the start."""

    calls: int
    tokens: int
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSpending:
    """Calls, tokens or money of teacher and judge."""

    name: str
    spent: float
    planned: float | None
    """None where nobody planned, or no price is known."""
    most: float | None
    """As the recipe's budget bounds it."""
    rate: float | None
    """A second, while it is spent."""

    @property
    def share(self) -> float | None:
        return min(1.0, self.spent / self.planned) if self.planned else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveView:
    state: str
    """In a word: `running`, `ended`, `interrupted`, `failed`, `died`, or `not started`."""
    why: str
    seconds: float
    silent_seconds: float
    tasks: tuple[LiveTask, ...]
    steps: tuple[LiveStep, ...]
    spending: tuple[LiveSpending, ...]
    servers: str
    """`2 of 3 well`; empty where none is asked just now."""
    servers_are_well: bool
    warnings: tuple[str, ...]

    @property
    def is_running(self) -> bool:
        return self.state == "running"

    @property
    def is_silent(self) -> bool:
        return self.is_running and self.silent_seconds > SILENT_SECONDS


class RunControls(NamedTuple):
    """What the studio offers to do with a run."""

    is_starting: bool = False
    """Its process was started and has not said anything yet."""
    can_stop: bool = False
    recipe: str = ""
    """That it was started from; empty where nobody noted it."""
    request: str = ""
    """What starts it again, as JSON."""
    said: str = ""
    """What its process said last, where it failed."""


def live_of(run: RunFiles, now: Callable[[], float] = time.time) -> LiveView:
    """Of a run that may have ended, or that an earlier version made."""
    said = read_run_state(run.path)
    steps = tuple(_steps(run, said))
    if said is None:
        return LiveView(
            state="ended" if run.is_scored else "not started",
            why="",
            seconds=0.0,
            silent_seconds=0.0,
            tasks=(),
            steps=steps,
            spending=tuple(_spending(run, None)),
            servers="",
            servers_are_well=True,
            warnings=(),
        )
    moment = now()
    is_dead = said.state == "running" and not said.may_go_on
    well, _, num_servers = _figure(said, "servers").partition("/")
    return LiveView(
        state="died" if is_dead else said.state,
        why=said.why,
        seconds=(said.told_at if said.state != "running" else moment) - said.began_at,
        silent_seconds=moment - said.told_at,
        tasks=tuple(_task(task, said.told_at) for task in said.tasks if not is_dead),
        steps=steps,
        spending=tuple(_spending(run, said)),
        servers=f"{well} of {num_servers} well" if num_servers and not is_dead else "",
        servers_are_well=well == num_servers,
        warnings=tuple(said.warnings),
    )


def _task(task: TaskState, now: float) -> LiveTask:
    return LiveTask(
        name=task.name,
        unit=task.unit,
        done=task.done,
        total=task.total,
        share=min(1.0, task.done / task.total) if task.total else None,
        rate=task.rate(now),
        seconds_left=task.seconds_left(now),
        figures=tuple((name, _text(value)) for name, value in task.figures.items()),
    )


def _text(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _steps(run: RunFiles, said: RunState | None) -> list[LiveStep]:
    left_out = {name for name, is_wanted in _wanted(run).items() if not is_wanted}
    is_running = said is not None and said.state == "running"
    found: list[LiveStep] = []
    for name in (name for name in STEP_TITLES if name not in left_out):
        rows = run.steps.get(name)
        is_next = rows is None and is_running and all(s.state == "done" for s in found)
        state = "done" if rows is not None else "now" if is_next else "to come"
        found.append(
            LiveStep(
                title=STEP_TITLES[name],
                state=state,
                num_rows=len(rows) if rows is not None else 0,
                seconds=rows.seconds if rows is not None else 0.0,
            )
        )
    return found


def _wanted(run: RunFiles) -> dict[str, bool]:
    """Whether the recipe has a step done that is not a part of every run."""
    recipe, generate, evaluate = run.recipe, run.recipe.generate, run.recipe.evaluate
    has_leaves, replay = recipe.taxonomy is not None, recipe.mix.base_replay
    # Whether the base can be asked, and whether an exam has such answers, is seen in the run alone.
    is_open = "touched" not in run.steps
    return {
        "leaves": has_leaves,
        "calibration": has_leaves and generate.judge and generate.judge_floor is not None,
        "leaf-exams": has_leaves,
        "samples": has_leaves,
        "own-voice": has_leaves and recipe.own_voice is not None,
        "base-replay": replay is not None and replay.source is None,
        "merged": recipe.train.merges_the_end,
        "preferred": recipe.prefer is not None,
        "served-exams": evaluate.asks_server("exams"),
        "general": "general" in run.steps or (is_open and evaluate.general.enabled),
        "benchmarks": bool(evaluate.benchmark),
        "mt-bench": evaluate.mt_bench is not None,
        "retrieval": has_leaves and evaluate.retrieval is not None,
        "judged": "judged" in run.steps or (is_open and evaluate.long_answers == "judge"),
    }


def _spending(run: RunFiles, said: RunState | None) -> list[LiveSpending]:
    """Of the task that asks the teacher, else of the samples that are done."""
    caps = run.recipe.generate.budget
    most = {"calls": caps.max_calls, "tokens": caps.max_tokens, "cost": caps.max_cost}
    done = run.funnel.spent._asdict() if run.funnel else {}
    path = run.path / PLANNED
    planned = read_stored(path, PlannedSpending, "remove it").model_dump() if path.exists() else {}
    found = []
    for name, cap in most.items():
        now = _figure(said, name)
        spent = float(now) if now else done.get(name)
        if spent is not None and (spent or planned.get(name) or cap is not None):
            rate = _figure(said, f"{name}/s")
            found.append(
                LiveSpending(
                    name="money" if name == "cost" else name,
                    spent=spent,
                    planned=planned.get(name) or None,
                    most=cap,
                    rate=float(rate) if rate else None,
                )
            )
    return found


def _figure(said: RunState | None, name: str) -> str:
    """What a task that is open says of it; empty where none does."""
    tasks = said.tasks if said is not None and said.state == "running" else ()
    return next((str(task.figures[name]) for task in tasks if name in task.figures), "")
