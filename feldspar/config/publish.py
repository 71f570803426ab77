"""What a recipe may say about a result that is published."""

from __future__ import annotations

from pydantic import field_validator

from feldspar.config.base import Count, Part
from feldspar.keys import Speed
from feldspar.reference_scores import PUBLISHED_ROWS


class PublishConfig(Part):
    """`feldspar publish`: what only its author can know of a result."""

    licence: str = ""
    """Of the result, by the hub's short name (`apache-2.0`). Empty: that of the base."""
    max_shard_mb: Speed[Count] = 5000
    """Weights are split into files of at most so many million bytes."""
    compare_with: tuple[str, ...] = ()
    """Published models (`Merlinite-7b`) whose scores the model card sets beside the result's.
    Empty: all that are known, where the run has scores of the same benchmarks."""

    @field_validator("compare_with")
    @classmethod
    def _rows_are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [row.model for row in PUBLISHED_ROWS]
        for name in names:
            if name not in known:
                raise ValueError(f"no published row of {name!r}; there are: {', '.join(known)}")
        return names
