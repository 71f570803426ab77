"""What a recipe may say about where a run's commands are started."""

from __future__ import annotations

from typing import Literal

from feldspar.config.base import Part
from feldspar.keys import Place


class ClusterConfig(Part):
    """Where commands are started: those of teacher, judge, policy, reward pair and
    `evaluate.server`."""

    engine: Place[Literal["local", "ray"]] = "local"
    """`local`: next to the run. `ray`: on the nodes of the Ray cluster that this machine is part
    of; the environment variable RAY_ADDRESS names it where there are several. Needs `pip install
    'feldspar[cluster]'`. A table with an `engine` of its own keeps that."""
