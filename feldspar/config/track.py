"""What a recipe may say about where a training's figures are shown beside metrics.jsonl."""

from __future__ import annotations

from typing import Literal

from feldspar.config.base import Part
from feldspar.keys import Place

TrackerName = Literal["tensorboard", "wandb", "trackio"]


class TrackConfig(Part):
    """Other places for the figures of every step. metrics.jsonl is written whatever is here."""

    to: Place[tuple[TrackerName, ...]] = ()
    """`tensorboard` writes into the run; `wandb` and `trackio` take keys from the environment."""
    project: Place[str] = "feldspar"
    """Of wandb and trackio; the run's name is the recipe's."""
