"""What a recipe may say about the Slurm job that it runs in."""

from __future__ import annotations

import re

from pydantic import field_validator

from feldspar.config.base import Count, NoneOrMore, Part
from feldspar.keys import Place


class SlurmConfig(Part):
    """With this table `feldspar run` submits itself as a Slurm job and follows it; within a job it
    is ignored. Nodes need a disk that all share."""

    nodes: Place[Count] = 1
    """Nodes of the job. More than one needs `[cluster] engine = "ray"`, which is then started on
    all of them; the run itself is on the first."""
    gpus_per_node: Place[NoneOrMore] = 8
    """GPUs of each node (`--gpus-per-node`); 0 asks for none."""
    time: Place[str] = "24:00:00"
    """Longest time of the job, as Slurm writes it. Two minutes before its end the run is told to
    save its state; the same command goes on."""
    partition: Place[str | None] = None
    """Of the job. None: Slurm's default."""
    account: Place[str | None] = None
    """Whom the time is charged to. None: Slurm's default."""
    options: Place[tuple[str, ...]] = ()
    """More options of sbatch, such as `--cpus-per-task=64`."""
    setup: Place[str] = ""
    """Lines of bash before the run: `module load cuda`, or an environment to activate."""

    @field_validator("options")
    @classmethod
    def _options_are_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        for option in options:
            if not re.fullmatch(r"--?[\w-]+(=\S.*)?", option):
                raise ValueError(f"slurm.options are written as --name=value, got {option!r}")
        return options

    @field_validator("time", "partition", "account")
    @classmethod
    def _is_one_word(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch(r"[\w:.,+-]+", text):
            raise ValueError(f"one word without spaces, got {text!r}")
        return text
