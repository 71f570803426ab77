"""What a recipe may say about where a run's commands are started."""

from __future__ import annotations

from typing import Literal

from feldspar.config.base import Part
from feldspar.keys import Place


class ClusterConfig(Part):
    """Where commands are started: those of teacher, judge, policy, reward pair and
    `evaluate.server`."""

    engine: Place[Literal["local", "ray"]] = "local"
    """`local`: on this machine. `ray`: on the nodes of the Ray cluster that the environment
    variable RAY_ADDRESS names, or of the one that runs here; needs `pip install
    'feldspar[cluster]'`. A table with an `engine` of its own keeps that."""
