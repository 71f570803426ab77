"""Does one round on the toy models, and kills itself on the way: `FOLDER WHERE TOY`.

WHERE is `drawn` or `base` (when two shards of these are written), `fit` (in a step), or `nowhere`.
"""

import json
import os
import signal
import sys
from pathlib import Path

from toy_models import prompt

from feldspar.config import PreferConfig, StudentConfig, TrainConfig
from feldspar.prefer import candidates
from feldspar.prefer.rounds import tune_preferences
from feldspar.student.fit import FitSettings
from feldspar.student.model import base_checkpoint


class NoExams:
    key = "none"

    def __call__(self, checkpoint):
        return []


def main(here: Path, where: str, toy: dict[str, str]) -> None:
    candidates.PROMPTS_PER_SHARD = 8
    write_rows, learning_rate_at = candidates.write_rows, FitSettings.learning_rate_at

    def write_and_die(path, rows):
        written = write_rows(path, rows)
        if (path.parent.name, path.name) == (where, "00001.jsonl.zst"):
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    def step_and_die(self, step, num_steps):
        if where == "fit" and step == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return learning_rate_at(self, step, num_steps)

    candidates.write_rows, FitSettings.learning_rate_at = write_and_die, step_and_die
    config = PreferConfig(
        aligned=toy["aligned"], base=toy["base"], num_prompts=30, num_answers=4, max_new_tokens=16,
        learning_rate=2e-3, batch_samples=8, control=False,
    )  # fmt: skip
    checkpoints = tune_preferences(
        base_checkpoint(toy["policy"]), [prompt(n) for n in range(30)], config,
        train=TrainConfig(), student=StudentConfig(base="tiny", max_length=128), score=NoExams(),
        seed=1, here=here,
    )  # fmt: skip
    assert [c.phase for c in checkpoints] == ["round-1"]


main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
