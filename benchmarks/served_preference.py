"""A server as policy and as both models of the reward pair, beside the same computed here.

    python benchmarks/served_preference.py RUN --command 'vllm serve {model} --port {port} ...'

RUN is a trained run of a real chat model. Its result is the policy and the aligned model, its base
the base of the pair. The server draws answers to some of the exams' questions; the same answers are
then rewarded here and by the server, launched for one model after the other. Prints in Markdown how
far the log ratios lie apart, and how often both ways pick the same best of N.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from feldspar.config import PreferConfig, StudentConfig, TeacherConfig
from feldspar.evaluate.examples import example_questions
from feldspar.prefer.reward import (
    ROLES,
    close_scorer,
    find_pair,
    free_memory,
    log_ratio,
    open_scorer,
    score_answers,
)
from feldspar.prefer.served_policy import ServedPolicy, launched_policy
from feldspar.records import Message
from feldspar.runs import read_recipe_of, result_of
from feldspar.student.inference.sample import Sampled, sample_answers
from feldspar.student.model import base_checkpoint, load_to_answer
from feldspar.student.scoring.log_probs import AnswerRow

SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--command", required=True)
    parser.add_argument("--num", type=int, default=12, help="prompts")
    parser.add_argument("--answers", type=int, default=8, help="N, of each prompt")
    parser.add_argument("--room", type=int, default=24, help="tokens of an answer at most")
    asked = parser.parse_args()
    recipe = read_recipe_of(asked.run)
    student = recipe.student
    aligned, base = result_of(asked.run).path, base_checkpoint(student.base).path
    server = TeacherConfig(command=asked.command, start_seconds=900, concurrency=4)
    here = PreferConfig(
        aligned=aligned, base=base, num_answers=asked.answers, max_new_tokens=asked.room
    )
    served = here.model_copy(update={"aligned_server": server, "base_server": server})
    questions = example_questions(asked.run, asked.num)
    prompts = [[Message(role="user", content=question)] for question in questions]
    with tempfile.TemporaryDirectory() as folder:
        drawn = drawn_there(server, aligned, prompts, here, student, Path(folder))
        print_draws("server", drawn)
        print_draws("here", drawn_here(aligned, prompts, here, student))
        rows = [
            AnswerRow(messages=messages, answer=one.text, ended=one.ended)
            for messages, answers in zip(prompts, drawn, strict=True)
            for one in answers
        ]
        ratios = {
            name: rewards(config, student, rows, Path(folder))
            for name, config in (("here", here), ("server", served))
        }
    print_rewards(ratios["here"], ratios["server"], asked.answers)


def drawn_there(
    server: TeacherConfig,
    model: str,
    prompts: Sequence[Sequence[Message]],
    config: PreferConfig,
    student: StudentConfig,
    folder: Path,
) -> list[list[Sampled]]:
    keys = [str(number) for number in range(len(prompts))]
    with launched_policy(server, model, folder / "policy.log") as launched:
        policy = ServedPolicy(launched, model, config.num_answers, config, student)
        return policy.draw(prompts, keys, SEED, folder / "answers.jsonl")


def drawn_here(
    model: str, prompts: Sequence[Sequence[Message]], config: PreferConfig, student: StudentConfig
) -> list[list[Sampled]]:
    loaded = load_to_answer(model, student)
    keys = [str(number) for number in range(len(prompts))]
    return list(
        sample_answers(
            loaded,
            prompts,
            keys=keys,
            num_answers=config.num_answers,
            max_new_tokens=config.max_new_tokens,
            seed=SEED,
            temperature=config.temperature,
        )
    )


def rewards(
    config: PreferConfig, student: StudentConfig, rows: Sequence[AnswerRow], folder: Path
) -> list[float]:
    """Log ratios in nats: one model of the pair after the other."""
    pair = find_pair(config)
    found = []
    for role in ROLES:
        scorer = open_scorer(role, pair, student, folder)
        try:
            found.append(score_answers(scorer, rows))
        finally:
            close_scorer(scorer)
        del scorer
        free_memory()
    return [log_ratio(a, b, config.normalise) for a, b in zip(*found, strict=True)]


def print_draws(name: str, drawn: Sequence[Sequence[Sampled]]) -> None:
    answers = [one for of_prompt in drawn for one in of_prompt]
    ended = sum(one.ended for one in answers)
    tokens = statistics.mean(one.num_tokens for one in answers)
    different = statistics.mean(len({one.text for one in of_prompt}) for of_prompt in drawn)
    print(
        f"- drawn by {name}: {len(answers)} answers to {len(drawn)} prompts, {ended} ended, "
        f"{tokens:.1f} tokens each, {different:.1f} different ones a prompt"
    )


def print_rewards(here: Sequence[float], there: Sequence[float], num_answers: int) -> None:
    apart = [abs(a - b) for a, b in zip(here, there, strict=True)]
    groups = range(0, len(here), num_answers)
    best = [
        (
            max(range(num_answers), key=lambda i: here[start + i]),
            max(range(num_answers), key=lambda i: there[start + i]),
        )
        for start in groups
    ]
    same = sum(a == b for a, b in best)
    given_up = [here[s + a] - here[s + b] for s, (a, b) in zip(groups, best, strict=True) if a != b]
    print(
        f"- rewards of {len(here)} answers, from {min(here):.1f} to {max(here):.1f} nats: "
        f"{statistics.mean(apart):.3f} apart in the mean, {max(apart):.3f} at most; correlation "
        f"{statistics.correlation(here, there):.4f}"
    )
    print(
        f"- the best of {num_answers} is the same for {same} of {len(best)} prompts"
        + (f"; elsewhere {max(given_up):.3f} nats are given up at most" if given_up else "")
    )


if __name__ == "__main__":
    main()
