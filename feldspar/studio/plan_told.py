"""What `feldspar plan --json` says of a recipe, in a process of its own: it may load torch."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from feldspar.children import child_environment, module_command
from feldspar.errors import RunError

MAX_KEPT = 20
SECONDS = 300.0
FRESH_SECONDS, WRONG_SECONDS = 60.0, 5.0
"""How long a plan is shown again, and one that says that something is wrong."""


class ToldCalls(BaseModel):
    """Calls of one stage."""

    step: str
    stage: str
    is_judge: bool
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float


class ToldPhase(BaseModel):
    name: str
    rows_per_epoch: int
    num_epochs: int
    num_steps: int
    hours: float | None


class ToldMemory(BaseModel):
    """A way of training, in bytes a device."""

    options: list[str]
    total: int
    fits: bool | None


class ToldCheck(BaseModel):
    name: str
    state: Literal["ok", "note", "wrong"]
    says: str


class ToldPlan(BaseModel):
    """The bill, as the command prints it."""

    calls: list[ToldCalls]
    phases: list[ToldPhase]
    memory: list[ToldMemory]
    num_parameters: int
    teacher_hours: float | None
    training_hours: float | None
    preference_hours: float | None
    not_included: list[str]
    cost: float
    disk_bytes: int
    free_bytes: int
    warnings: list[str]
    checks: list[ToldCheck]

    @property
    def num_calls(self) -> int:
        return sum(c.calls for c in self.calls)

    @property
    def prompt_tokens(self) -> int:
        return sum(c.prompt_tokens for c in self.calls)

    @property
    def completion_tokens(self) -> int:
        return sum(c.completion_tokens for c in self.calls)

    @property
    def num_steps(self) -> int:
        return sum(p.num_steps for p in self.phases)

    @property
    def wrong(self) -> list[ToldCheck]:
        """What stops the run before it begins."""
        return [check for check in self.checks if check.state == "wrong"]


class Planner:
    """Asks for plans, one at a time; what was told just now is not asked again.

    Teacher, taxonomy, disk and packages decide it too, so it is not true for long, and what is
    wrong may be mended at once.
    """

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._lock = asyncio.Lock()
        self._known: OrderedDict[tuple[object, ...], tuple[float, ToldPlan]] = OrderedDict()

    def known(self, recipe: Path, settings: Sequence[str]) -> ToldPlan | None:
        """What was told last of the recipe with these settings; None where nothing was."""
        told = self._known.get(_key(recipe, settings))
        return told and told[1]

    async def plan(self, recipe: Path, settings: Sequence[str]) -> ToldPlan:
        """Raises RunError with what the command says is wrong."""
        async with self._lock:
            key = _key(recipe, settings)
            told_at, told = self._known.pop(key, (-math.inf, None))
            age = time.monotonic() - told_at
            if told is None or age > (WRONG_SECONDS if told.wrong else FRESH_SECONDS):
                told_at, told = time.monotonic(), await self._ask(recipe, settings)
            self._known[key] = told_at, told
            while len(self._known) > MAX_KEPT:
                self._known.popitem(last=False)
            return told

    async def _ask(self, recipe: Path, settings: Sequence[str]) -> ToldPlan:
        command = [*module_command("feldspar.cli.main"), "plan", str(recipe), "--json"]
        command += ["--runs", str(self._runs), *(f"--set={s}" for s in settings)]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(),
        )
        try:
            async with asyncio.timeout(SECONDS):
                out, said = await process.communicate()
        except TimeoutError:
            raise RunError(
                f"{recipe.name}: no plan after {SECONDS:.0f} s; try feldspar plan"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            lines = said.decode("utf-8", "replace").splitlines() or ["feldspar plan failed"]
            raise RunError(lines[-1].removeprefix("feldspar: "))
        try:
            return ToldPlan.model_validate_json(out)
        except ValidationError as error:
            raise RunError(f"feldspar plan said something else: {error.errors()[0]}") from error


def _key(recipe: Path, settings: Sequence[str]) -> tuple[object, ...]:
    stat = recipe.stat()
    return (recipe, stat.st_mtime_ns, stat.st_size, *settings)
