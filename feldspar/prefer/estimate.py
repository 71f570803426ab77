"""What preference tuning will cost, before it starts."""

import math

from feldspar.config import PreferConfig, TrainConfig
from feldspar.prefer.prompts import HELD_OUT_SHARE, MAX_HELD_OUT
from feldspar.records import Estimate

FLOAT_BYTES = 4
BYTES_PER_CANDIDATE = 250
"""On disk over its four files, packed. Reckoned for texts of 300 characters, not measured."""


def estimate(
    config: PreferConfig, train: TrainConfig, num_prompts: int, num_parameters: int = 0
) -> Estimate:
    """Steps and disk of all rounds, for `num_prompts` questions that the samples will give.

    Of a model of `num_parameters` every round and control keeps a checkpoint; two of them and the
    optimizer's states are kept too while one is being made.
    """
    asked = min(num_prompts, config.num_prompts)
    tuned = asked - min(MAX_HELD_OUT, round(asked * HELD_OUT_SHARE))
    tuned = min(tuned, config.round_prompts or tuned)
    batch = config.batch_samples or train.batch_samples
    num_fits = config.num_rounds * (2 if config.control else 1)
    steps = math.ceil(tuned / batch) * config.num_epochs * num_fits
    num_candidates = tuned * config.num_answers * config.num_rounds
    return Estimate(
        step="preferred",
        optimizer_steps=steps,
        disk_bytes=num_candidates * BYTES_PER_CANDIDATE
        + FLOAT_BYTES * num_parameters * (num_fits + 1 + 2 * 3),
        note=f"{num_candidates:,} answers of up to {config.max_new_tokens} tokens drawn by the "
        f"student, each read by both models of the pair; {num_fits} checkpoints",
    )
