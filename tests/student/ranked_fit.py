"""Trains a tiny base over processes: under torchrun `FOLDER`, where the base is, in several ways.

In a process of its own, so that it may be killed; slowly, so that there is time.
"""

import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from step_mean import StepMean
from tiny import chats

from feldspar.cli.processes import training_processes
from feldspar.config import LoraConfig, StudentConfig
from feldspar.errors import TrainingError
from feldspar.prefer.methods.dpo import PreferencePairs
from feldspar.records import Conversation
from feldspar.student.fit import fit
from feldspar.student.model import Student, save_checkpoint
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training import loop as loops
from feldspar.student.training.lora import load_to_train
from feldspar.student.training.objective import Objective
from feldspar.student.training.process_group import LaunchSettings, Places
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings

SINGLE = {
    "epochs": 1,
    "batch_samples": 1,
    "num_rows": 3,
    "optimizer_states": "bfloat16",
    "shard": "step",
}
"""Steps of one row."""
AT_ONCE = {"epochs": 1, "batch_samples": 60, "max_grad_norm": 1e9}
"""One step of all rows, whose gradient is left as it is."""
PAIRS = {"objective": "pairs", "epochs": 2, "learning_rate": 1e-3}
"""Direct preference optimisation: each row against the next."""
STEP_MEAN = {"objective": "step mean", "epochs": 2}
"""A loss that needs the mean of its step, of all processes' rows."""
UNDER_TORCHRUN = {
    "torchrun": {},
    "single-2": SINGLE,
    "turned": AT_ONCE | {"tokens_per_micro_batch": 150, "is_turned": True},
    "low by step": AT_ONCE | {"dtype": "bfloat16", "shard": "step"},
    "low by layer": AT_ONCE | {"dtype": "bfloat16", "shard": "layer"},
    "pairs by step": PAIRS | {"shard": "step"},
    "step mean": STEP_MEAN | {"shard": "layer"},
    "compiled": {"is_compiled": True, "activation_checkpointing": "always"},
}
if find_spec("peft"):
    UNDER_TORCHRUN["low rank"] = {"lora": LoraConfig(rank=4), "shard": "layer"}


def train(
    here: Path,
    num: int,
    *,
    shard: str = "auto",
    epochs: int = 4,
    batch_samples: int = 16,
    num_rows: int = 60,
    stop_at: int = 0,
    start: str = "base",
    is_turned: bool = False,
    dtype: str = "auto",
    is_compiled: bool = False,
    lora: LoraConfig | None = None,
    objective: str = "",
    places: Places | None = None,
    **settings: object,
) -> None:
    """Rows in steps of sixteen, the last of an epoch partial; checkpoints after 4 and at the end.

    The training ends in an InterruptedError at the checkpoint `stop_at`. `is_turned`: the rows of
    each source the other way round.
    """
    config = StudentConfig(base="tiny", device="cpu", dtype=dtype, compile=is_compiled, lora=lora)
    base = here.parent / "base"
    student = load_to_train(str(base), config, seed=5)
    sources = [("a", chats(num_rows * 2 // 3)), ("b", chats(num_rows // 3, seed=2))]
    if is_turned:
        sources = [(name, chats[::-1]) for name, chats in sources]
    rows = tokenise(student.template, sources, 200)
    schedule = plan(rows, epochs, batch_samples)

    def checkpoint(step: int) -> None:
        save_checkpoint(student, here / f"step-{step}", phase="p", step=step)
        if step == stop_at:
            raise InterruptedError

    every = {"learning_rate": 1e-2, "warmup_steps": 3, "tokens_per_micro_batch": 60}
    every |= {"checkpoint_steps": (min(4, schedule.num_steps), schedule.num_steps)}
    fit(
        student,
        rows,
        schedule,
        FitSettings(**(every | settings)),
        folder=here,
        launch=LaunchSettings(
            num_processes=num,
            start=str(here.parent / start),
            config=config,
            shard=shard,
            seed=5,
            places=places,
        ),
        on_checkpoint=checkpoint,
        objective=objective_named(objective, student, rows, sources),
    )


def objective_named(
    name: str, student: Student, rows: TokenRows, sources: list[tuple[str, list[Conversation]]]
) -> Objective | None:
    if name == "pairs":
        turned = [(source, [*chats[1:], *chats[:1]]) for source, chats in sources]
        return PreferencePairs(rows, tokenise(student.template, turned, 200), 0.1)
    return StepMean(rows, 0.1) if name else None


def plan(rows: TokenRows, epochs: int, batch_samples: int) -> Schedule:
    sources = tuple(
        SourceRows(name=name, num_rows=num)
        for name, num in zip(rows.source_names, rows.num_rows, strict=True)
    )
    return Schedule(
        sources=sources, batch_samples=batch_samples, num_epochs=epochs, phase="p", seed=3
    )


def slow_down() -> None:
    """The first process waits before each step, and the others for it."""
    do_step = loops.Loop.do_step

    def waiting(self: loops.Loop, held: object) -> float:
        time.sleep(0.4)
        return do_step(self, held)

    loops.Loop.do_step = waiting


def main(here: Path, num_wanted: int | None, is_slow: bool) -> int:
    torch.set_num_threads(1)
    # As the command line does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    loops._STATE_SECONDS = 0.2
    try:
        if is_slow:
            slow_down()
        with training_processes(num_wanted) as num:
            if num is not None:
                train(here, num)
    except TrainingError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    with training_processes(None) as num:
        for name, settings in UNDER_TORCHRUN.items() if num is not None else ():
            train(Path(sys.argv[1]) / name, num, **settings)
