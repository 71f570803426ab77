"""Steps of a run that a test computes itself."""

import inspect
import json
from collections.abc import Callable, Iterable
from typing import Any

from feldspar.runs import CURRENT, Rows, Run
from feldspar.steps import Step


def find_again(run: Run) -> None:
    """As the flow does: what is current is found before a later step is done."""
    run._found.update(json.loads((run.path / CURRENT).read_text()))


def do_step(
    run: Run, name: str, function: Callable[..., Iterable[Any]], *args: Any, **kwargs: Any
) -> Rows[Any]:
    """`function`'s rows as those of the step `name`; it may take a workspace first."""
    takes_workspace = next(iter(inspect.signature(function).parameters), None) == "workspace"
    make = Step if takes_workspace else Step.pure
    return run.step(make(name, function, version=1))(*args, **kwargs)
