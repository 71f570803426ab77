"""Preference tuning in rounds: draw, reward, pick, fine-tune; and the same for the control.

FOLDER/start/held-out/       what the SFT start says to prompts that are never tuned on
FOLDER/round-1/              its candidates, held-out/ after it, checkpoint/
FOLDER/control-1/            the same round on picks that know nothing of the reward
FOLDER/rounds.jsonl          one line a round
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from feldspar.config import PreferConfig, StudentConfig, TrainConfig
from feldspar.errors import TrainingError
from feldspar.files import write_text_whole
from feldspar.prefer.candidates import Reward, RoundContext, draw_candidates
from feldspar.prefer.picks import Figures, mean_by_prompt, survey
from feldspar.prefer.prompts import (
    HELD_OUT_ANSWERS,
    Drawn,
    draw_prompts,
    prompts_of_round,
    with_headroom,
)
from feldspar.prefer.release import SFT, Release, Standing, choose_release, kept_change
from feldspar.prefer.reward import find_pair, log_ratio
from feldspar.prefer.tuning import tune
from feldspar.records import (
    Candidate,
    Checkpoint,
    Prompt,
    RateCheckpoint,
    Score,
    ScoreCheckpoint,
    ScoreItems,
)
from feldspar.runs import read_rows
from feldspar.stats.intervals import NUM_RESAMPLES, paired_difference
from feldspar.steps import Step, Workspace

log = logging.getLogger(__name__)

LENGTH_DRIFT = 1.2
"""Growth of the mean answer that is warned of while the reward rises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A line of rounds.jsonl. Rewards in nats, lengths in tokens."""

    phase: str
    released: bool
    """The one round that `prefer.release` chose; of none where the start is released again."""
    withheld: str
    """Why it may not be released; empty where it may."""
    held_out_before: float
    """Mean reward of the policy's own answers, not of the best of N, to held-out prompts."""
    held_out_after: float
    change_low: float
    change_high: float
    """95 % interval of after minus before, paired by prompt."""
    held_out_control: float | None
    """The same after tuning on a random pick; None where the control is off."""
    held_out_tokens_before: float
    held_out_tokens_after: float
    kept_change: float | None
    kept_low: float | None
    kept_high: float | None
    """Change of what is to be kept since the SFT start, paired, with its 95 % interval; None where
    no exam asks for that."""
    num_again: int
    """Prompts that an earlier round asked too, of a recipe with `round_prompts`."""
    figures: Figures
    scores: dict[str, list[Score]]
    """Of the selection exams, by phase; with MT-Bench where it is run, but not of controls. The
    first round has the start's too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldOut:
    by_prompt: dict[str, float]
    mean_tokens: float

    @property
    def mean(self) -> float:
        return sum(self.by_prompt.values()) / len(self.by_prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    line: Round
    checkpoint: Checkpoint
    control: Checkpoint | None
    after: _HeldOut
    standing: Standing


class _Models(NamedTuple):
    """Who answers in a round, and who is tuned on the picks: one and the same, or the SFT start."""

    policy: Checkpoint
    start: Checkpoint


def tune_preferences(
    workspace: Workspace,
    sft: Checkpoint,
    prompts: Iterable[Prompt],
    config: PreferConfig,
    *,
    train: TrainConfig,
    student: StudentConfig,
    score: ScoreCheckpoint,
    rate: RateCheckpoint | None = None,
    kept: ScoreItems | None = None,
    reward: Reward | None = None,
    seed: int,
) -> Iterator[Checkpoint]:
    """Tune on answers picked by their reward (docs/preference.md).

    Gives the controls and the rounds in order, the released one last (release.py); where no round
    may be released, the start itself comes last, called `sft`. What an earlier try finished in the
    workspace is used again. `rate` judges the start and each round's model, as `score` examines
    them, but no controls; `kept` marks what is to be kept, by which a round is refused. `reward`
    takes the place of the log ratio, for studies of what another would do.
    """
    context = RoundContext(
        config=config,
        student=student,
        train=train,
        pair=find_pair(config) if config.reward == "log-ratio" else None,
        reward=reward or partial(log_ratio, normalise=config.normalise),
        score=score,
        rate=rate,
        kept=kept,
        seed=seed,
        progress=workspace.progress,
        num_processes=workspace.num_processes,
    )
    if config.headroom is not None:
        prompts = with_headroom(prompts, score(sft), config.headroom)
    drawn = draw_prompts(prompts, config.num_prompts, seed)
    policy, before = sft, _measure(sft, drawn.held_out, workspace.folder / "start", context)
    highest, first = before.mean, _standing(sft, before, context)
    outcomes: list[_Outcome] = []
    for number in range(1, config.num_rounds + 1):
        start = sft if config.restart == "sft" else policy
        outcome = _do_round(
            number, _Models(policy, start), before, drawn, workspace.folder, context
        )
        outcomes.append(outcome)
        _write(workspace.folder, outcomes, released=None)
        if config.stop_at_plateau and outcome.after.mean <= highest:
            break
        highest = max(highest, outcome.after.mean)
        policy, before = outcome.checkpoint, outcome.after
    chosen = choose_release(first, [o.standing for o in outcomes], config.release)
    outcomes = _judged(outcomes, first, chosen)
    released = None if chosen.round is None else outcomes[chosen.round]
    _write(workspace.folder, outcomes, released)
    _warn(outcomes, released)
    yield from _in_order(outcomes, released)
    yield released.checkpoint if released else replace(sft, phase=SFT)


PREFERRED_STEP = Step("preferred", tune_preferences, version=2)


def _in_order(outcomes: Sequence[_Outcome], released: _Outcome | None) -> Iterator[Checkpoint]:
    """All checkpoints but the one that is released."""
    for outcome in outcomes:
        if outcome.control is not None:
            yield outcome.control
        if outcome is not released:
            yield outcome.checkpoint


def _standing(policy: Checkpoint, held_out: _HeldOut, context: RoundContext) -> Standing:
    """A model's marks by what decides on the release."""
    measures = {"reward": held_out.by_prompt}
    if "mt-bench" in context.config.release:
        assert context.rate is not None, "the recipe was checked"
        measures["mt-bench"] = context.rate.values(policy)
    kept = {} if context.kept is None else context.kept.values(policy)
    return Standing(measures=measures, kept=kept)


def _judged(outcomes: Sequence[_Outcome], first: Standing, chosen: Release) -> list[_Outcome]:
    """The outcomes with what was found of them beside the start."""
    judged = []
    for outcome, why in zip(outcomes, chosen.withheld, strict=True):
        line = replace(outcome.line, withheld=why)
        if (kept := kept_change(first, outcome.standing)) is not None:
            low, high = kept.interval
            line = replace(line, kept_change=kept.value, kept_low=low, kept_high=high)
        judged.append(replace(outcome, line=line))
    return judged


def _do_round(
    number: int,
    models: _Models,
    before: _HeldOut,
    drawn: Drawn,
    root: Path,
    context: RoundContext,
) -> _Outcome:
    """One round. The control starts from the same model and is tuned on the same prompts."""
    folder, control_folder = root / f"round-{number}", root / f"control-{number}"
    asked, num_again = prompts_of_round(drawn.tuned, number, context.config, context.seed)
    path = draw_candidates(models.policy, asked, context.config.num_answers, folder, context)
    picks, figures = survey(read_rows(path, Candidate), context.method, context.seed)
    prompts = {prompt.id: prompt for prompt in asked}
    tuned = [row for of_prompt in picks for row in of_prompt.tuned]
    if not tuned:
        raise TrainingError(
            f"{folder.name}: no prompt of {figures.num_prompts} has a choice "
            f"({figures.equal_share:.0%} have equal rewards, {figures.unfinished_share:.0%} of the "
            "answers did not end); raise prefer.temperature or prefer.max_new_tokens"
        )
    checkpoint = tune(models.start, tuned, prompts, folder, context)
    after = _measure(checkpoint, drawn.held_out, folder, context)
    scores = {checkpoint.phase: [*context.score(checkpoint), *_rated(checkpoint, context)]}
    if number == 1 and context.rate is not None:
        scores = {models.policy.phase: _rated(models.policy, context)} | scores
    control, control_after = None, None
    if context.config.control:
        rows = [row for of_prompt in picks for row in of_prompt.control]
        control = tune(models.start, rows, prompts, control_folder, context)
        control_after = _measure(control, drawn.held_out, control_folder, context).mean
        scores[control.phase] = context.score(control)
    line = _line(folder.name, before, after, control_after, figures, scores, context.seed)
    line = replace(line, num_again=num_again)
    standing = _standing(checkpoint, after, context)
    return _Outcome(
        line=line, checkpoint=checkpoint, control=control, after=after, standing=standing
    )


def _rated(checkpoint: Checkpoint, context: RoundContext) -> list[Score]:
    return [] if context.rate is None else context.rate(checkpoint)


def _measure(
    policy: Checkpoint, held_out: Sequence[Prompt], folder: Path, context: RoundContext
) -> _HeldOut:
    path = draw_candidates(policy, held_out, HELD_OUT_ANSWERS, folder / "held-out", context)
    lengths = [candidate.num_tokens for candidate in read_rows(path, Candidate)]
    return _HeldOut(
        by_prompt=mean_by_prompt(read_rows(path, Candidate)),
        mean_tokens=sum(lengths) / len(lengths),
    )


def _line(
    phase: str,
    before: _HeldOut,
    after: _HeldOut,
    control: float | None,
    figures: Figures,
    scores: dict[str, list[Score]],
    seed: int,
) -> Round:
    change = paired_difference(
        list(before.by_prompt.values()),
        [after.by_prompt[prompt] for prompt in before.by_prompt],
        NUM_RESAMPLES,
        seed,
    )
    return Round(
        phase=phase,
        released=False,
        withheld="",
        held_out_before=before.mean,
        held_out_after=after.mean,
        change_low=change.interval.low,
        change_high=change.interval.high,
        held_out_control=control,
        held_out_tokens_before=before.mean_tokens,
        held_out_tokens_after=after.mean_tokens,
        kept_change=None,
        kept_low=None,
        kept_high=None,
        num_again=0,
        figures=figures,
        scores=scores,
    )


def _write(root: Path, outcomes: Sequence[_Outcome], released: _Outcome | None) -> None:
    lines = []
    for outcome in outcomes:
        line = asdict(replace(outcome.line, released=outcome is released))
        # Flat, so that a line is a row of a table.
        lines.append({**line.pop("figures"), **line})
    write_text_whole(root / "rounds.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def _warn(outcomes: Sequence[_Outcome], released: _Outcome | None) -> None:
    if released is None:
        why = "; ".join(f"{o.line.phase}: {o.line.withheld}" for o in outcomes)
        log.warning("no round is released, the SFT start is: %s", why)
    for outcome in outcomes:
        line = outcome.line
        grew = line.held_out_tokens_after / line.held_out_tokens_before
        if grew > LENGTH_DRIFT and line.held_out_after > line.held_out_before:
            log.warning(
                "%s: answers grew from %.1f to %.1f tokens while the reward rose; see what they "
                'say, and prefer.normalise = "mean"',
                line.phase, line.held_out_tokens_before, line.held_out_tokens_after,
            )  # fmt: skip
