"""What `feldspar plan --json` says of a recipe, in a process of its own: it may load torch."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from feldspar.children import child_environment, module_command
from feldspar.errors import RunError

MAX_KEPT = 20
SECONDS = 300.0


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
    """Asks for plans, one at a time; what a recipe's file said before is not asked again."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._lock = asyncio.Lock()
        self._known: OrderedDict[tuple[object, ...], ToldPlan] = OrderedDict()

    def known(self, recipe: Path, settings: Sequence[str]) -> ToldPlan | None:
        """What was told of the recipe with these settings, as it is now; None where nothing was."""
        return self._known.get(_key(recipe, settings))

    async def plan(self, recipe: Path, settings: Sequence[str]) -> ToldPlan:
        """Raises RunError with what the command says is wrong."""
        async with self._lock:
            key = _key(recipe, settings)
            told = self._known.pop(key, None)
            if told is None:
                told = await self._ask(recipe, settings)
            self._known[key] = told
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
