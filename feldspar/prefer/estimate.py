"""What preference tuning will cost, before it starts."""

import math

from feldspar.config import PreferConfig, RewardPromptsConfig, TrainConfig
from feldspar.prefer.prompts import HELD_OUT_ANSWERS, HELD_OUT_SHARE, MAX_HELD_OUT
from feldspar.records import Estimate, PreferenceVolume
from feldspar.tokens.count import guess_tokens

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
    drawn = volume(config, num_prompts)
    batch = config.batch_samples or train.batch_samples
    num_fits = drawn.num_rounds * drawn.models_per_round
    steps = math.ceil(drawn.prompts / batch) * config.num_epochs * num_fits
    num_candidates = drawn.prompts * drawn.answers * drawn.num_rounds
    return Estimate(
        step="preferred",
        optimizer_steps=steps,
        disk_bytes=num_candidates * BYTES_PER_CANDIDATE
        + FLOAT_BYTES * num_parameters * (num_fits + 1 + 2 * 3),
        note=f"{num_candidates:,} answers of up to {config.max_new_tokens} tokens drawn by the "
        f"student, each read by both models of the pair; {num_fits} checkpoints",
    )


def volume(config: PreferConfig, num_prompts: int) -> PreferenceVolume:
    """What all rounds draw, for `num_prompts` questions that the samples will give."""
    asked = min(num_prompts, config.num_prompts)
    held_out = min(MAX_HELD_OUT, round(asked * HELD_OUT_SHARE))
    tuned = min(asked - held_out, config.round_prompts or asked)
    return PreferenceVolume(
        num_rounds=config.num_rounds,
        prompts=tuned,
        answers=config.num_answers,
        held_out_prompts=held_out,
        held_out_answers=HELD_OUT_ANSWERS,
        models_per_round=2 if config.control else 1,
        answer_tokens=config.max_new_tokens,
        domain_tokens=_domain_tokens(config.reward_prompts),
    )


def _domain_tokens(config: RewardPromptsConfig | None) -> int:
    if config is None:
        return 0
    texts = [
        " ".join([domain.text, *(f"{e.question} {e.answer}" for e in domain.examples)])
        for domain in config.domain
    ]
    return max(guess_tokens(text) for text in (config.default, *texts))
