"""Trains a tiny base over processes: `FOLDER NUM_PROCESSES [--shard S] [--epochs N]`.

FOLDER holds `base`; what comes of it is in FOLDER/out. Run by itself, so that it may be killed.
"""

import argparse
import sys
from pathlib import Path

import torch
from tiny import chats

from feldspar.config import StudentConfig
from feldspar.errors import TrainingError
from feldspar.student import fit as fitting
from feldspar.student.batch import TokenRows, tokenise
from feldspar.student.fit import FitSettings, fit
from feldspar.student.model import load_student, save_checkpoint
from feldspar.student.peers import Ranks
from feldspar.student.schedule import Schedule, SourceRows


def train(
    here: Path, num: int, *, shard: str = "auto", epochs: int = 4, **settings: object
) -> None:
    """Sixty rows in steps of sixteen, the last of an epoch partial; two checkpoints on the way."""
    config = StudentConfig(base="tiny", device="cpu")
    base = here.parent / "base"
    student = load_student(str(base), config)
    rows = tokenise(student.template, [("a", chats(40)), ("b", chats(20, seed=2))], 200)
    every = {"learning_rate": 1e-2, "warmup_steps": 3, "checkpoint_steps": (4, 4 * epochs)}
    fit(
        student,
        rows,
        plan(rows, epochs),
        FitSettings(**(every | {"tokens_per_micro_batch": 60} | settings)),
        here=here,
        ranks=Ranks(num=num, start=str(base), config=config, shard=shard),
        on_checkpoint=lambda step: save_checkpoint(
            student, here / f"step-{step}", phase="p", step=step
        ),
    )


def plan(rows: TokenRows, epochs: int) -> Schedule:
    sources = tuple(
        SourceRows(name=name, num_rows=num)
        for name, num in zip(rows.source_names, rows.num_rows, strict=True)
    )
    return Schedule(sources=sources, batch_samples=16, num_epochs=epochs, phase="p", seed=3)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("here", type=Path)
    parser.add_argument("num", type=int)
    parser.add_argument("--shard", default="auto")
    parser.add_argument("--epochs", type=int, default=4)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    fitting._STATE_SECONDS = 0.2
    try:
        train(asked.here, asked.num, shard=asked.shard, epochs=asked.epochs)
    except TrainingError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
