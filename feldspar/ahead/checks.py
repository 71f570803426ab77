"""What a check looks at, and what it finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from feldspar.config import Recipe
from feldspar.errors import DiskError, FeldsparError, disk_fault

NOTICES = "feldspar.notices"
"""Name of the logger of what a run says of itself as it starts."""
Until = Literal["samples", "phases", "trained", "preferred", "scores"]
"""How far a run goes."""
UNTIL: tuple[Until, ...] = ("samples", "phases", "trained", "preferred", "scores")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A recipe that is looked at."""

    recipe: Recipe
    """With real paths."""
    named: Recipe
    """As it was written."""
    run_path: Path | None
    """None: there is no run, nothing is fetched, and the world's models are not made."""
    until: Until = "scores"
    folder: Path = Path()
    """Where the recipe lies, on whose disk a run would be."""

    @property
    def is_run(self) -> bool:
        return self.run_path is not None

    def reaches(self, step: Until) -> bool:
        """Whether the run goes so far."""
        return UNTIL.index(self.until) >= UNTIL.index(step)


class Note(str):
    """What a check found that stops no run, but should be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the list: `wrong` says how to mend it."""

    name: str
    state: Literal["ok", "note", "wrong"]
    says: str
    error: FeldsparError | None = None
    """What a run raises, where it is wrong."""


Look = Callable[[Subject], str | None]
"""Says what is there, or gives a `Note`; None where the recipe has no such thing. Raises
FeldsparError with the place and the cure where it is wrong."""


def found_by(name: str, look: Look, subject: Subject) -> Check | None:
    """What one check finds."""
    try:
        says = look(subject)
    except FeldsparError as error:
        return Check(name=name, state="wrong", says=str(error), error=error)
    except OSError as error:
        wrong = DiskError(f"{disk_fault(error)}; see that it is there and can be used")
        return Check(name=name, state="wrong", says=str(wrong), error=wrong)
    if says is None:
        return None
    return Check(name=name, state="note" if isinstance(says, Note) else "ok", says=says)
