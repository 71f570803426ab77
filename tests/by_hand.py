"""Steps of a run that a test computes itself."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from feldspar.runs import Rows, Run
from feldspar.steps import Step


def do_step(
    run: Run, name: str, function: Callable[..., Iterable[Any]], *args: Any, **kwargs: Any
) -> Rows[Any]:
    """`function`'s rows as those of the step `name`; it may take a workspace first."""
    takes_workspace = next(iter(inspect.signature(function).parameters), None) == "workspace"
    make = Step if takes_workspace else Step.pure
    return run.step(make(name, function, version=1))(*args, **kwargs)
