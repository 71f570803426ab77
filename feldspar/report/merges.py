"""The merged weights of a run, read from where its steps left them."""

from __future__ import annotations

from pathlib import Path

from feldspar.runs import open_step
from feldspar.stats.merge_curve import MERGES, MergeSelection
from feldspar.stored import read_whole_lines


def read_merges(run_path: Path) -> list[MergeSelection]:
    """The decisions behind a run's checkpoints, phase by phase, then after the last.

    Raises RunError where what says so is damaged.
    """
    found: list[MergeSelection] = []
    for name in ("trained", "merged"):
        step = open_step(run_path, name)
        digests = {checkpoint.digest for checkpoint in step or ()}
        if step is not None:
            lines = read_whole_lines(step.file(MERGES), MergeSelection)
            found += [line for line in lines if line.digest in digests]
    return found
