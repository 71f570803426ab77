"""What a recipe may ask of its result: the bounds of `feldspar gate`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from feldspar.config.base import Fraction, Part


class GateConfig(Part):
    """Bounds that `feldspar gate RUN` holds a run's result to. Each is compared with the lower end
    of a 95 % interval, so that luck with few items does not pass; None: not asked."""

    learned: Fraction | None = None
    """Least share of the leaves' exam items that is right."""
    gain: Annotated[float | None, Field(ge=-1, le=1)] = None
    """Least change of that share since the base, paired item by item."""
    kept: Fraction | None = None
    """Of the items of `retention` exams and of general knowledge that the base had right, the least
    share that still is."""
    loss: Fraction | None = None
    """Most that the share of right items of these exams may have fallen since the base, paired."""
    leaf: Fraction | None = None
    """Least share that is right in every single leaf's exam. Few items have wide intervals: all
    right of 10 is .72 at the lower end, of 20 .84."""

    @property
    def has_bounds(self) -> bool:
        return any(value is not None for value in self.model_dump().values())
