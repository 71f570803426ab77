"""What a recipe may say about a result that is published."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from feldspar.config.base import Count, Part
from feldspar.keys import Speed
from feldspar.reference_scores import PUBLISHED_ROWS


class PublishConfig(Part):
    """What `feldspar publish` writes that only the author can know."""

    licence: str = ""
    """Licence of the result, by the hub's short name (`apache-2.0`). Empty: the base's."""
    base_model: str = ""
    """The base's id on the hub, where the base is a folder: for the model card. Empty: what the
    folder says of it, if anything."""
    dtype: Literal["base", "float32", "bfloat16", "float16"] = "base"
    """Precision of the published weights; checkpoints of a run are in float32. base: the base's
    own."""
    max_shard_mb: Speed[Count] = 5000
    """Weights are split into files of at most this many million bytes."""
    compare_with: tuple[str, ...] = ()
    """Published models (`Merlinite-7b`) whose scores the model card shows for comparison. Empty:
    all known ones with scores on the same benchmarks."""

    @field_validator("compare_with")
    @classmethod
    def _rows_are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        known = [row.model for row in PUBLISHED_ROWS]
        for name in names:
            if name not in known:
                raise ValueError(f"no published row of {name!r}; there are: {', '.join(known)}")
        return names
