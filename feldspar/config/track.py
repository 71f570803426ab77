"""What a recipe may say about where a training's figures are shown beside metrics.jsonl."""

from __future__ import annotations

from typing import Literal

from feldspar.config.base import Part
from feldspar.keys import Place

TrackerName = Literal["tensorboard", "wandb", "trackio"]


class TrackConfig(Part):
    """Where metrics are shown besides metrics.jsonl, which is always written."""

    to: Place[tuple[TrackerName, ...]] = ()
    """`tensorboard` writes into the run; `wandb` and `trackio` read their keys from the
    environment."""
    project: Place[str] = "feldspar"
    """Project name in wandb and trackio; the run's name is the recipe's."""
