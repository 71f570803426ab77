"""How far a run is can be read from another process, and how it ended."""

import logging
import socket
from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.progress import SILENT
from feldspar.progress_file import PROGRESS_FILE, RecordedProgress, read_run_state
from feldspar.records import Checkpoint, ExamItem, Phase
from feldspar.runs import Run
from feldspar.views.live import PLANNED, live_of
from feldspar.views.run_files import RunFiles

RECIPE = Recipe.model_validate({"name": "r", "taxonomy": {"path": "t"}, "student": {"base": "b"}})


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feldspar.progress_file.SECONDS_BETWEEN", 0.0)


def test_tasks_and_warnings_are_told_while_it_runs(tmp_path: Path) -> None:
    with Run(tmp_path / "r", RECIPE) as run:
        with run.progress.task("samples", 40, "samples", done=10) as task:
            logging.getLogger("feldspar.generate").warning("the teacher is slow")
            (run.path / PLANNED).write_text('{"calls": 48, "tokens": 900, "cost": 0.0}')
            figures = {"calls": 12, "calls/s": 2.5, "servers": "1/2"}
            task.advance(10, kept=7, **figures)
            view = live_of(RunFiles(run.path))
        [shown] = view.tasks
        assert (view.state, shown.name, shown.done, shown.share) == ("running", "samples", 20, 0.5)
        assert shown.rate > 0
        assert shown.seconds_left is not None
        assert dict(shown.figures)["kept"] == "7"
        assert view.warnings == ("warning: the teacher is slow",)
        (calls,) = view.spending
        assert (calls.name, calls.spent, calls.planned, calls.rate) == ("calls", 12, 48, 2.5)
        assert (calls.share, calls.most) == (0.25, None)
        assert (view.servers, view.servers_are_well) == ("1 of 2 well", False)
        assert not live_of(RunFiles(run.path)).tasks
    assert live_of(RunFiles(run.path)).state == "ended"


def test_the_steps_are_those_of_the_recipe_in_the_order_of_the_flow(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "r",
            "student": {"base": "b"},
            "data": [{"name": "mine", "path": "d.jsonl"}],
            "train": {"phase": [{"name": "one", "data": ["mine"], "select": "last"}], "merge": {}},
            "evaluate": {"server": {"endpoint": "http://s/v1"}, "mt_bench": {}},
        }
    )
    with Run(tmp_path / "r", recipe) as run:
        do_step(run, "own-exams", lambda: list[ExamItem]())
        do_step(run, "phases", lambda: list[Phase]())
        do_step(run, "trained", lambda: list[Checkpoint]())
        steps = live_of(RunFiles(run.path)).steps
    assert [(s.title, s.state) for s in steps] == [
        ("read your exams", "done"),
        ("mix the phases", "done"),
        ("train the phases", "done"),
        ("merge what was trained with its start", "now"),
        ("score every checkpoint", "to come"),
        ("ask the served model the exams", "to come"),
        ("ask for general knowledge", "to come"),
        ("rate chats by MT-Bench", "to come"),
        ("look for exam items in what was trained on", "to come"),
        ("score without those", "to come"),
    ]


def test_the_rate_is_of_this_try_alone(tmp_path: Path) -> None:
    with RecordedProgress(SILENT, tmp_path) as progress, progress.task("a", 100, "x", 90) as task:
        task.advance(2)
        state = read_run_state(tmp_path)
    assert state is not None
    [told] = state.tasks
    assert told.rate(told.began_at + 4) == 0.5
    assert told.seconds_left(told.began_at + 4) == 16


@pytest.mark.parametrize(
    ("error", "state"), [(RunError("no room"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_how_it_ended_is_told(tmp_path: Path, error: BaseException, state: str) -> None:
    def fail() -> None:
        with Run(tmp_path / "r", RECIPE):
            raise error

    with pytest.raises(type(error)):
        fail()
    view = live_of(RunFiles(tmp_path / "r"))
    assert (view.state, view.why) == (state, str(error))


def test_a_process_that_is_gone_is_not_taken_for_a_run(tmp_path: Path) -> None:
    with Run(tmp_path / "r", RECIPE) as run:
        said = (run.path / PROGRESS_FILE).read_text()
    assert '"state": "running"' in said
    gone = said.replace(f'"pid": {_pid(said)}', '"pid": 2147480000')
    (run.path / PROGRESS_FILE).write_text(gone)
    assert live_of(RunFiles(run.path)).state == "died"


def test_a_run_on_another_machine_is_not_taken_for_dead(tmp_path: Path) -> None:
    with Run(tmp_path / "r", RECIPE) as run:
        said = (run.path / PROGRESS_FILE).read_text()
    here = f'"host": "{socket.gethostname()}"'
    assert here in said
    away = said.replace(f'"pid": {_pid(said)}', '"pid": 2147480000').replace(here, '"host": "n7"')
    (run.path / PROGRESS_FILE).write_text(away)
    assert live_of(RunFiles(run.path)).state == "running"


def test_a_cut_off_file_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / PROGRESS_FILE).write_text('{"pid"')
    assert read_run_state(tmp_path) is None


def _pid(said: str) -> str:
    return said.partition('"pid": ')[2].partition(",")[0]
