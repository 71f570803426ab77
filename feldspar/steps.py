"""A step of a run: a function from records to records, its name, and its version.

    SAMPLES = Step("samples", generate_samples, version=1)

stands under the function, and `Run.step(SAMPLES)(leaves, config, ...)` computes it once. Raise the
version when the function's results change: what was made by the one before is then made anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, Generic, ParamSpec, TypeVar

from feldspar.progress import SILENT, Progress

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a step works. Nothing here decides its result."""

    folder: Path
    """For the step's own files. Kept when the step dies, so that it goes on from them."""
    progress: Progress = SILENT
    num_processes: int = 1
    """That train together."""
    answers: Path | None = None
    """Where answers lie that another step, or another run, may use again; None: nowhere."""


class Step(Generic[P, R]):
    """`function(workspace, ...)` under a name. Its rows are computed once per key."""

    def __init__(
        self, name: str, function: Callable[Concatenate[Workspace, P], Iterable[R]], *, version: int
    ) -> None:
        self.name = name
        self.version = version
        self.run = function
        parameters = list(inspect.signature(function).parameters.values())[1:]
        self._signature = inspect.Signature(parameters)

    @classmethod
    def pure(cls, name: str, function: Callable[P, Iterable[R]], *, version: int) -> Step[P, R]:
        """A step that needs no workspace."""

        def run(_: Workspace, /, *args: P.args, **kwargs: P.kwargs) -> Iterable[R]:
            return function(*args, **kwargs)

        step = cls(name, run, version=version)
        step._signature = inspect.signature(function)
        return step

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> dict[str, object]:
        """What it is called with, by name, defaults included: what its key is made of."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)
