import itertools
import json
import shutil
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import Forked
from killed_tuning import die_at, do_one_round
from safetensors.torch import load_file
from toy_models import BAD, GOOD, prompt, teach

from feldspar.config import LoraConfig, PreferConfig, StudentConfig, TrainConfig
from feldspar.prefer.estimate import estimate
from feldspar.prefer.prompts import with_headroom
from feldspar.prefer.rounds import tune_preferences
from feldspar.records import Candidate, Checkpoint, Interval, Score
from feldspar.runs import read_rows
from feldspar.steps import Workspace
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import base_checkpoint, load_student, save_checkpoint
from feldspar.student.scoring.log_probs import AnswerRow, answer_log_probs

STUDENT = StudentConfig(base="tiny", max_length=128)
TWO_ROUNDS = {
    "num_rounds": 2, "num_epochs": 1, "control": False, "stop_at_plateau": False,
    "round_prompts": 24, "top_up": 0.25,
}  # fmt: skip


class ScoreByName:
    """Scores every checkpoint .5, and remembers which it was shown."""

    key = "fake"

    def __init__(self):
        self.seen = []

    def __call__(self, checkpoint: Checkpoint):
        self.seen.append(checkpoint.phase)
        return [
            Score(
                checkpoint=checkpoint.phase, exam="toy", metric="accuracy", value=0.5,
                interval=Interval(0.4, 0.6), num_items=9,
            )
        ]  # fmt: skip


class RateByName(ScoreByName):
    """A judge in the place of MT-Bench's."""

    def __call__(self, checkpoint):
        (score,) = super().__call__(checkpoint)
        return [replace(score, exam="mt-bench", metric="rating", value=6.0 + len(self.seen))]


def tune(toy, here, score=None, reward=None, student=STUDENT, rate=None, **changes):
    settings = {
        "aligned": toy["aligned"], "base": toy["base"], "num_prompts": 40, "num_answers": 4,
        "max_new_tokens": 16, "learning_rate": 2e-3, "batch_samples": 12, "num_epochs": 3,
    }  # fmt: skip
    return list(
        tune_preferences(
            Workspace(folder=here),
            base_checkpoint(toy["policy"]),
            [prompt(n) for n in range(40)],
            PreferConfig(**{**settings, **changes}),
            train=TrainConfig(),
            student=student,
            score=score or ScoreByName(),
            rate=rate,
            reward=reward,
            seed=1,
        )
    )


def share_of_good(path):
    """Part of sampled answers that are the one the aligned model prefers."""
    student = load_student(path, STUDENT)
    asked = [prompt(n) for n in range(100, 140)]
    answers = sample_answers(
        student, [p.messages for p in asked], keys=[p.id for p in asked],
        num_answers=4, temperature=1.0, max_new_tokens=16, seed=7,
    )  # fmt: skip
    counts = Counter(answer.text for drawn in answers for answer in drawn)
    return counts[GOOD] / counts.total()


def lines(here):
    return [json.loads(line) for line in (here / "rounds.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tuned(toy, tmp_path_factory):
    here = tmp_path_factory.mktemp("tuned")
    score = ScoreByName()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("feldspar.prefer.candidates.PROMPTS_PER_SHARD", 10)
        return here, tune(toy, here, score), score


@pytest.mark.slow
def test_the_policy_learns_to_say_what_the_aligned_model_prefers(toy, tuned):
    _, (control, best), _ = tuned
    start = share_of_good(toy["policy"])
    assert share_of_good(best.path) > start + 0.2
    assert share_of_good(best.path) > share_of_good(control.path) + 0.2


@pytest.mark.slow
def test_the_line_of_a_round_says_what_happened(tuned):
    here, checkpoints, score = tuned
    (line,) = lines(here)
    assert [c.phase for c in checkpoints] == ["control-1", "round-1"]
    assert sorted(score.seen) == ["control-1", "round-1"]
    assert line["released"]
    assert line["held_out_after"] > line["held_out_before"]
    assert line["change_low"] == 0  # four held-out prompts are too few to tell it from noise
    assert line["held_out_after"] > line["held_out_control"]
    assert line["best_reward"] > line["random_reward"]
    assert line["num_prompts"] == 36
    assert line["scores"]["round-1"][0]["value"] == 0.5


@pytest.mark.slow
def test_candidates_are_whole_and_in_order(tuned):
    here, _, _ = tuned
    candidates = list(read_rows(here / "round-1" / "candidates.jsonl.zst", Candidate))
    assert len(candidates) == 36 * 4
    assert [c.draw for c in candidates] == [0, 1, 2, 3] * 36
    assert len({c.prompt for c in candidates}) == 36


@pytest.mark.slow
def test_a_round_goes_on_from_what_is_there_to_the_same_round(toy, tuned, tmp_path, monkeypatch):
    here, checkpoints, _ = tuned
    monkeypatch.setattr("feldspar.prefer.candidates.PROMPTS_PER_SHARD", 10)
    shutil.copytree(here, tmp_path, dirs_exist_ok=True)
    # As if it had been killed while the base read: nothing is tuned yet, two shards are to come.
    folder = tmp_path / "round-1"
    for gone in ("control-1", "round-1/checkpoint", "round-1/held-out"):
        shutil.rmtree(tmp_path / gone)
    for gone in ("candidates.jsonl.zst", "checkpoint.json", "base/00002.jsonl.zst"):
        (folder / gone).unlink()
    (folder / "base" / "00003.jsonl.zst").unlink()
    kept = folder / "drawn" / "00000.jsonl.zst", folder / "base" / "00001.jsonl.zst"
    written = [path.stat().st_mtime_ns for path in kept]
    resumed = tune(toy, tmp_path)
    assert [path.stat().st_mtime_ns for path in kept] == written
    assert [c.digest for c in resumed] == [c.digest for c in checkpoints]
    assert lines(tmp_path) == lines(here)


@pytest.fixture(scope="module")
def two_rounds(toy, tmp_path_factory):
    here, rate = tmp_path_factory.mktemp("two"), RateByName()
    return here, tune(toy, here, rate=rate, **TWO_ROUNDS), rate


@pytest.mark.slow
def test_of_several_rounds_the_peak_comes_last(two_rounds):
    here, checkpoints, _ = two_rounds
    found = lines(here)
    peak = max(found, key=lambda line: line["held_out_after"])
    assert checkpoints[-1].phase == peak["phase"]
    assert sorted(c.phase for c in checkpoints) == ["round-1", "round-2"]
    assert [line["released"] for line in found] == [line is peak for line in found]
    assert found[1]["held_out_before"] == found[0]["held_out_after"]
    assert found[0]["held_out_control"] is None
    assert all(Path(c.path).is_dir() for c in checkpoints)


@pytest.mark.slow
def test_rounds_are_judged_and_top_up_their_prompts(two_rounds):
    here, _, rate = two_rounds
    found = lines(here)
    assert rate.seen == ["round-1", "base", "round-2"]
    assert [line["scores"][line["phase"]][-1]["value"] for line in found] == [7.0, 9.0]
    assert found[0]["scores"]["base"][0]["exam"] == "mt-bench"
    assert [(line["num_prompts"], line["num_again"]) for line in found] == [(24, 0), (24, 12)]
    assert all(0 < line["distinct_share"] <= 1 for line in found)


@pytest.mark.slow
def test_rounds_end_where_the_reward_no_longer_rises_and_the_start_is_released(
    toy, tmp_path, caplog
):
    falling = itertools.count(0, -1)
    checkpoints = tune(
        toy, tmp_path, reward=lambda aligned, base: next(falling),
        num_rounds=3, control=False, num_epochs=1,
    )  # fmt: skip
    assert [c.phase for c in checkpoints] == ["round-1", "sft"]
    start = base_checkpoint(toy["policy"])
    assert (checkpoints[-1].path, checkpoints[-1].digest) == (start.path, start.digest)
    (line,) = lines(tmp_path)
    assert not line["released"]
    assert line["withheld"].startswith("reward -")
    assert f"the SFT start is: round-1: {line['withheld']}" in caplog.text


@pytest.mark.slow
def test_answers_that_grow_with_the_reward_are_warned_of(toy, tmp_path, caplog):
    talkative = load_student(toy["policy"], STUDENT)
    teach(talkative, (GOOD, f"{GOOD} {GOOD}", GOOD), tmp_path / "taught", 60)
    save_checkpoint(talkative, tmp_path / "policy", phase="base", step=0)
    here = tmp_path / "tuned"
    asked = toy | {"policy": str(tmp_path / "policy")}
    tune(asked, here, reward=lambda aligned, base: float(aligned.num_tokens), control=False)
    (line,) = lines(here)
    assert line["held_out_tokens_after"] > 1.2 * line["held_out_tokens_before"]
    before, after = line["held_out_tokens_before"], line["held_out_tokens_after"]
    assert f"round-1: answers grew from {before:.1f} to {after:.1f} tokens" in caplog.text


@pytest.mark.slow
def test_a_round_that_restarts_is_tuned_from_the_sft_start(toy, two_rounds, tmp_path):
    here, _, _ = two_rounds
    shutil.copytree(here, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "round-2")
    tune(toy, tmp_path, restart="sft", **TWO_ROUNDS)
    last, sft = (
        [(folder / "round-2" / name).read_bytes()
         for name in ("candidates.jsonl.zst", "checkpoint/model.safetensors")]
        for folder in (here, tmp_path)
    )  # fmt: skip
    assert last[0] == sft[0]  # drawn from the last round's model either way
    assert last[1] != sft[1]


@pytest.mark.slow
def test_a_run_killed_in_sampling_scoring_and_fit_ends_as_if_it_had_not_been(toy, tmp_path):
    for where in ("drawn", "base", "fit"):
        dead = Forked(die_at, tmp_path / "killed", where, toy)
        assert dead.wait() == -signal.SIGKILL, (where, dead.said())
    do_one_round(tmp_path / "killed", toy)
    do_one_round(tmp_path / "whole", toy)
    weights, rounds, candidates = (
        [(tmp_path / here / file).read_bytes() for here in ("whole", "killed")]
        for file in (
            "round-1/checkpoint/model.safetensors", "rounds.jsonl", "round-1/candidates.jsonl.zst"
        )
    )  # fmt: skip
    assert weights[0] == weights[1]
    assert candidates[0] == candidates[1]
    assert rounds[0] == rounds[1]


def preference(path):
    """Mean over new questions of log p(good answer) - log p(bad one), in nats."""
    student = load_student(path, STUDENT)
    rows = [AnswerRow(prompt(n).messages, text) for n in range(100, 120) for text in (GOOD, BAD)]
    found = [score.total for score in answer_log_probs(student, rows)]
    return (sum(found[::2]) - sum(found[1::2])) / 20


@pytest.mark.slow
def test_dpo_learns_the_same_preference_from_pairs(toy, tmp_path):
    tuned = tune(toy, tmp_path, method="dpo", num_epochs=4, learning_rate=3e-4)
    # Four held-out prompts may be too few for a release: the start then comes last.
    control, best = tuned[:2]
    start = preference(toy["policy"])
    assert preference(best.path) > start + 0.5
    assert preference(best.path) > preference(control.path) + 0.5


def test_only_leaves_with_headroom_are_asked(caplog):
    def score(leaf, value, metric="accuracy"):
        return Score(
            checkpoint="sft", exam="leaf exams", metric=metric, value=value, leaf=leaf,
            interval=Interval(0, 1), num_items=9,
        )  # fmt: skip

    prompts = [prompt(n) for n in range(9)]  # of leaf0, leaf1, leaf2
    scores = [score("leaf0", 0.9), score("leaf1", 0.5), score("leaf1", 0.9, "log-likelihood")]
    assert {p.source for p in with_headroom(prompts, scores, 0.8)} == {"leaf1", "leaf2"}
    assert not caplog.records
    full = [score(f"leaf{n}", 0.8) for n in range(3)]
    assert with_headroom(prompts, full, 0.8) == prompts
    assert "prefer.headroom" in caplog.text


def test_the_estimate_counts_steps_of_rounds_and_controls():
    config = PreferConfig(aligned="a", base="b", num_rounds=3, batch_samples=100, num_answers=4)
    found = estimate(config, TrainConfig(), num_prompts=1000)
    assert found.optimizer_steps == 3 * 2 * 9
    alone = estimate(config.model_copy(update={"control": False}), TrainConfig(), 1000)
    assert alone.optimizer_steps == 3 * 9


@pytest.mark.slow
def test_low_rank_preference_tuning_gives_a_plain_model(toy, tmp_path):
    pytest.importorskip("peft", reason="the extra feldspar[lora] is not installed")
    student = STUDENT.model_copy(update={"lora": LoraConfig(rank=4)})
    tuned = tune(toy, tmp_path / "low", student=student, num_epochs=1, num_prompts=12)[1]
    weights, before = (
        load_file(f"{path}/model.safetensors") for path in (tuned.path, toy["policy"])
    )
    assert weights.keys() == before.keys()
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(weights[name], before[name])
    assert torch.equal(weights["model.norm.weight"], before["model.norm.weight"])
