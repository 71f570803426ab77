"""Runs started and stopped from the page: `feldspar run` in a process of its own, which lives on.

What was started is noted in the run (`launch.json`), so that another studio can go on with it; what
it says goes to `run.log` there. Who may write is decided by the run's own lock, as ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field

from feldspar.children import child_environment, module_command
from feldspar.config import read_recipe
from feldspar.errors import RunError
from feldspar.files import write_json
from feldspar.progress_file import read_run_state
from feldspar.runs import LOCK, claim_run
from feldspar.stored import read_stored
from feldspar.studio.project import Project
from feldspar.views.live import RunControls

LAUNCH = "launch.json"
RUN_LOG = "run.log"
MAX_SETTINGS = 40
LOG_LINES = 12
MAX_EXIT_SECONDS = 60.0
"""That a process may take to end after its run has."""
_LOG_BYTES = 8192
_SETTING = re.compile(r"[a-z_][\w.\-]*\s*=.*", re.DOTALL)


class LaunchRequest(BaseModel):
    """A recipe of the project, and settings laid over it, each `section.key=value`."""

    model_config = ConfigDict(extra="forbid")
    recipe: str = Field(max_length=500)
    settings: list[str] = Field(default=[], max_length=MAX_SETTINGS)


class LaunchState(NamedTuple):
    """What became of a start."""

    state: Literal["starting", "running", "ended", "failed", "interrupted", "none"]
    said: str = ""
    """The last lines of what it said, where it failed."""


class _Started(NamedTuple):
    """What the studio started last under a run's name."""

    process: subprocess.Popen[bytes]
    at: float
    """In seconds since the epoch."""
    is_job: bool
    """Whether the process only follows a Slurm job."""


class RunControl:
    """Starts and stops the runs of a project."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._started: dict[str, _Started] = {}
        self._lock = threading.Lock()

    def start(self, asked: LaunchRequest) -> str:
        """Start a recipe's run, or go on with it; gives the run's name.

        Raises RecipeError where recipe or settings are wrong, RunError where it runs already.
        """
        path = self._project.recipe_path(asked.recipe)
        for setting in asked.settings:
            if not _SETTING.fullmatch(setting):
                raise RunError(f"{setting[:80]!r} is no setting; write section.key=value")
        recipe = read_recipe(path, asked.settings)
        run_path = self._project.runs / recipe.name
        self._wait_for_exit(recipe.name)
        with self._lock:
            claim_run(run_path, path.parent)
            if self._lives(recipe.name) or _is_held(run_path):
                raise RunError(f"{recipe.name} runs already; stop it, or wait for it")
            write_json(run_path / LAUNCH, asked.model_dump())
            at, is_job = time.time(), recipe.slurm is not None
            process = self._process(path, asked.settings, run_path)
            self._started[recipe.name] = _Started(process, at, is_job)
        return recipe.name

    def stop(self, name: str) -> None:
        """End a run as Ctrl-C does. Raises RunError where none is going on."""
        run_path = self._project.runs / name
        with self._lock:
            started = self._started.get(name)
            if started is not None and started.process.poll() is None:
                if started.is_job:
                    raise RunError(f"{name} is a Slurm job; end it by scancel: {_job(run_path)}")
                started.process.send_signal(signal.SIGINT)
                return
        said = read_run_state(run_path)
        if said is not None and said.state == "running" and said.is_elsewhere:
            raise RunError(f"{name} runs on {said.host}; stop it there")
        if said is None or said.state != "running" or not _is_held(run_path):
            raise RunError(f"{name} does not run just now")
        try:
            os.kill(said.pid, signal.SIGINT)
        except ProcessLookupError:
            raise RunError(f"{name} does not run just now") from None
        except PermissionError:
            raise RunError(f"{name} is run by another user; stop it there") from None

    def launch_state(self, name: str) -> LaunchState:
        """Of the last start by this studio."""
        run_path = self._project.runs / name
        started, said = self._started.get(name), read_run_state(run_path)
        if started is None:
            return LaunchState("none")
        is_its_word = said is not None and said.pid == started.process.pid
        if started.is_job:
            is_its_word = said is not None and said.may_go_on
        code = started.process.poll()
        if code is None:
            return LaunchState("running" if is_its_word else "starting")
        if code == 0:
            return LaunchState("ended")
        state: Literal["failed", "interrupted"] = "failed"
        if is_its_word and said is not None and said.state == "interrupted":
            state = "interrupted"
        return LaunchState(state, _last_lines(run_path / RUN_LOG))

    def controls(self, name: str) -> RunControls:
        """What can be done with a run now."""
        run_path = self._project.runs / name
        said, launch = read_run_state(run_path), self.launch_state(name)
        if launch.state == "starting":
            return RunControls(is_starting=True, can_stop=True)
        if said is not None and said.may_go_on:
            return RunControls(can_stop=not said.is_elsewhere)
        noted = self._noted(run_path)
        return RunControls(
            recipe=noted.recipe if noted else "",
            request=noted.model_dump_json() if noted else "",
            said=launch.said if launch.state == "failed" else "",
        )

    def _noted(self, run_path: Path) -> LaunchRequest | None:
        """How the run was started last, if its recipe is still there."""
        path = run_path / LAUNCH
        if not path.exists():
            return None
        asked = read_stored(path, LaunchRequest)
        return asked if any(r.path == asked.recipe for r in self._project.recipes()) else None

    def _wait_for_exit(self, name: str) -> None:
        """Of a process that has said its last word: it may take seconds to go, and until then the
        page already offers another start."""
        started, said = self._started.get(name), read_run_state(self._project.runs / name)
        if started is None or said is None or said.may_go_on or said.began_at < started.at:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.process.wait(MAX_EXIT_SECONDS)

    def _lives(self, name: str) -> bool:
        started = self._started.get(name)
        return started is not None and started.process.poll() is None

    def _process(
        self, recipe: Path, settings: Sequence[str], run_path: Path
    ) -> subprocess.Popen[bytes]:
        command = [*module_command("feldspar.cli.main"), "run", str(recipe)]
        command += ["--runs", str(self._project.runs), *(f"--set={s}" for s in settings)]
        with (run_path / RUN_LOG).open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=self._project.folder,
                env=child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A session of its own: neither the studio's end nor its terminal's ends it.
                start_new_session=True,
            )
        # Waited for, or it would look alive after its end.
        threading.Thread(target=process.wait, name=f"run {process.pid}", daemon=True).start()
        return process


def _is_held(run_path: Path) -> bool:
    """Whether a process writes the run now."""
    if not (run_path / LOCK).exists():
        return False
    lock = FileLock(run_path / LOCK)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True


def _job(run_path: Path) -> str:
    path = run_path / "slurm" / "job.json"
    return str(json.loads(path.read_text("utf-8"))["id"]) if path.exists() else "not submitted yet"


def _last_lines(path: Path) -> str:
    """Nothing where the run's folder was deleted."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LOG_BYTES))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-LOG_LINES:])
